"""A pod ends with the process that started it, whatever ends that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from oa_testing.waiting import eventually
from tests.deploy.cluster.sandbox import User, cannot_run, start
from tests.house.files import REPO

pytestmark = pytest.mark.skipif(bool(cannot_run()), reason=cannot_run())

RUNNER = """
import sys, time
from pathlib import Path
from tests.deploy.cluster.sandbox import User, start
program = "import subprocess, time; subprocess.Popen(['sleep', '3600']); time.sleep(3600)"
sandbox = start(["python3", "-c", program], {}, (), User(10001, 10001, 10001), Path(sys.argv[1]))
print(sandbox.pid, flush=True)
time.sleep(3600)
"""


def _ended(process: psutil.Process) -> bool:
    """Also if nobody has asked for its status yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def _runner(folder: Path) -> Iterator[psutil.Process]:
    """The pod of a runner, which is killed at the end of the block."""
    folder.chmod(0o755)
    command = [sys.executable, "-c", RUNNER, str(folder / "pod.log")]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as runner:
        try:
            assert runner.stdout is not None
            yield psutil.Process(int(runner.stdout.readline()))
        finally:
            runner.kill()


async def test_a_pod_and_all_that_it_started_end_when_their_runner_is_killed(scratch: Path) -> None:
    with _runner(scratch) as pod:
        await eventually(lambda: len(pod.children()) == 1 and pod.uids().real == 10001)
        processes = [pod, *pod.children()]
    await eventually(lambda: all(_ended(process) for process in processes))


def test_a_pod_that_is_killed_is_gone(scratch: Path) -> None:
    scratch.chmod(0o755)
    sandbox = start(["sleep", "3600"], {}, (), User(10001, 10001, 10001), scratch / "pod.log")
    pod = psutil.Process(sandbox.pid)
    sandbox.kill()
    assert _ended(pod)
