"""The package of the TypeScript client, compiled, and programs of it that tests run."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from oa_testing.waiting import PATIENCE_S

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"
NODE_MODULES = PACKAGE / "node_modules"
COMPILE_TIMEOUT_S = 300
Line = dict[str, Any]


def compiled(configuration: str = "tsconfig.json") -> Path:
    """The package's folder, after its compiler found nothing wrong. Skips the test where it is not installed."""
    if shutil.which("node") is None or not (NODE_MODULES / ".package-lock.json").exists():
        pytest.skip("the TypeScript client is not installed here: `make typescript` does it, where there is npm")
    # Several workers may want it at once, and none may find a file half written: what is compiled already stays.
    with (NODE_MODULES / ".compiling").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(["node", "node_modules/typescript/bin/tsc", "-p", configuration])
    assert done.returncode == 0, done.stdout
    return PACKAGE


def run(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """A program of the package, in its folder, to its end."""
    return subprocess.run(
        command, cwd=PACKAGE, input=given, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
    )


class Follower:
    """A program that follows a topic and prints each update as a line of JSON; `lines` are those so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.left: list[str] | None = None
        """The files that it left in the folder for temporary files, once it has ended."""

    @property
    def seqs(self) -> list[int]:
        """The seqs of the events that it was handed out, in order."""
        return [line["seq"] for line in self.lines if line["kind"] == "event"]

    async def until(self, kind: str, *, otherwise: str = "", **values: Any) -> Line:
        """Reads up to a line of this kind with these values, or one of the kind `otherwise`. Fails at a `defect`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(2 * PATIENCE_S):
            while text := await self.process.stdout.readline():
                self.lines.append(json.loads(text))
                line = self.lines[-1]
                if {"kind": kind, **values}.items() <= line.items() or line["kind"] == otherwise:
                    return line
                assert line["kind"] != "defect", line
        raise AssertionError(f"the program ended: {self.lines[-3:]}")

    def tell(self, order: str) -> None:
        """One line of its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n".encode())


@asynccontextmanager
async def following(program: str, options: Mapping[str, Any]) -> AsyncIterator[Follower]:
    """A program of the package's tests, that is told `options`. It ends with the block, and leaves no files."""
    with TemporaryDirectory(prefix="oa-typescript-") as folder:
        process = await asyncio.create_subprocess_exec(
            "node", f"build/test/{program}.js", json.dumps(options), cwd=PACKAGE,
            env={**os.environ, "TMPDIR": folder, "CHROMIUM_HOME": str(NODE_MODULES / ".chromium")},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=16 * 1024 * 1024,
        )  # fmt: skip
        follower = Follower(process)
        try:
            yield follower
        except BaseException:
            sys.stderr.write(f"{program} said at last: {follower.lines[-3:]}\n")
            raise
        finally:
            await _end(process)
            follower.left = _names(folder)


def _names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


async def _end(process: asyncio.subprocess.Process) -> None:
    """The program ends with its standard input. One that does not is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(PATIENCE_S):
            # Its output is read to the end, because a full pipe would hold it up.
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


class _Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a page loads more modules at once than the five that there is room for otherwise


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The origin at which the folder's files are."""
    server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
