"""A process that has no file descriptor left says so, once, and when it has some again."""

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import asyncio, os, resource
from oa_platform.process.descriptors import watch_descriptors
from structlog import configure
from structlog.testing import LogCapture

captured = LogCapture()
configure(processors=[captured])

async def said(count):
    while len(captured.entries) < count:
        await asyncio.sleep(0.01)

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    watching = asyncio.create_task(watch_descriptors(0.01))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    await said(1)
    await asyncio.sleep(0.2)
    for one in taken:
        os.close(one)
    await said(2)
    for entry in captured.entries:
        print(entry["event"], entry.get("error"), entry.get("limit"), "ulimit -n" in entry.get("advice", ""))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_descriptors_that_run_out_are_said_once() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [
        "descriptors_exhausted EMFILE 64 True",
        "descriptors_free None None False",
    ]
