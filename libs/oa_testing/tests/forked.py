"""A program for the tests of the fork server: it tells what it is, or ends in the way that its argument names."""

import asyncio
import atexit
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """What a process gets from who starts it, and from the interpreter."""
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    open_files = {int(one.name) for one in Path("/proc/self/fd").iterdir()}
    files: list[Any] = [sys.stdin, sys.stdout, sys.stderr]
    return {
        "arguments": sys.argv,
        "path": sys.path,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "parent": os.getppid(),
        "leads": (os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
        "group": os.getpgid(os.getppid()) == os.getpgid(0),
        "descriptors": sorted(one for one in open_files if Path(f"/proc/self/fd/{one}").exists()),
        "files": [(one.encoding, one.errors, one.line_buffering, one.write_through, one.isatty()) for one in files],
        "binary": [type(one.buffer).__name__ for one in files],
        "name": (__name__, str(sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name)),
        "limits": [resource.getrlimit(one) for one in (resource.RLIMIT_STACK, resource.RLIMIT_NOFILE)],
        "kernel": [line for line in status if line.startswith(("Umask", "SigBlk", "SigIgn", "SigCgt", "Threads"))],
        "flags": repr(sys.flags),
        "random": len({os.urandom(4) for _ in range(4)}),
    }


def main(what: str, *_: str) -> None:
    """Do it."""
    match what:
        case "tell":
            json.dump(facts(), sys.stdout)
        case "exit":
            atexit.register(print, "at exit")
            threading.Thread(target=print, args=("a thread",)).start()
            sys.stderr.write("last words")
            sys.exit(3)
        case "say why":
            sys.exit("why")
        case "raise":
            raise ValueError("a defect")
        case "interrupt":
            signal.raise_signal(signal.SIGINT)
        case "abort":
            os.abort()
        case "child":
            sys.exit(subprocess.run([sys.executable, "-c", "import sys; sys.exit(5)"], check=False).returncode)
        case "wait":
            sys.stdout.write("waits\n")
            sys.stdout.flush()
            asyncio.run(asyncio.sleep(600))
        case "echo":
            sys.stdout.write(sys.stdin.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
