"""An app-server that does what a test wrote down: `fake_app_server.py SCRIPT`, and Codex's own arguments, unused.

The script is JSON: method -> list of acts, done when the method is first called, again for each call if it is listed
under `method*`. An act is an object of one member:

    {"result": …}       answer the call
    {"error": …}        answer it with an error
    {"say": …}          say something: a notification or a request
    {"raw": "…"}        write a line that may be nothing
    {"stderr": "…"}     write to stderr
    {"flood": N}        write N bytes and no line's end
    {"await": ID}       read until our request ID is answered; the answer is written to the file `answers`
    {"child": FILE}     start a process that ignores SIGTERM in a session of its own; its pid goes to FILE
    {"exit": STATUS}    end; a negative one is a signal to itself
    {"hang": true}      do nothing any more
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHILD = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


def _script() -> Path:
    return Path(sys.argv[1])


def say(message: dict[str, Any]) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def read() -> dict[str, Any]:
    """Read one; ends with the input."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    with _script().with_name("heard").open("a") as heard:
        heard.write(line)
    return message


def act(what: str, value: Any, call: dict[str, Any]) -> None:
    """Do one thing."""
    match what:
        case "result" | "error":
            say({"id": call.get("id"), what: value})
        case "say":
            say(value)
        case "raw":
            sys.stdout.write(value + "\n")
            sys.stdout.flush()
        case "stderr":
            sys.stderr.write(value)
            sys.stderr.flush()
        case "flood":
            sys.stdout.write("x" * value)
            sys.stdout.flush()
        case "await":
            while read().get("id") != value:
                pass
        case "child":
            child = subprocess.Popen([sys.executable, "-c", CHILD])
            Path(value).write_text(str(child.pid))
        case "exit":
            if value < 0:
                os.kill(os.getpid(), -value)
            sys.exit(value)
        case "hang":
            time.sleep(3600)


def main() -> None:
    """Until the end of the input, or of the script's patience."""
    script: dict[str, list[dict[str, Any]]] = json.loads(_script().read_text())
    while True:
        call = read()
        method = call.get("method", "")
        acts = script.pop(method, None) or script.get(f"{method}*", [])
        for each in acts:
            for what, value in each.items():
                act(what, value, call)


if __name__ == "__main__":
    main()
