"""A fork is what a real process is: what holds for one holds for the other."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from oa_testing.fork_server import PYTHON, forks_python, starts_python
from oa_testing.waiting import PATIENCE_S

PROGRAM = ("-P", "-m", "oa_testing.tests.forked")
BOTH = (sys.executable, PYTHON)
each_way = pytest.mark.parametrize("python", BOTH, ids=["real", "forked"])
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def _told(python: str, *arguments: str, **options: Any) -> Any:
    command = [python, *PROGRAM, "tell", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S, **options)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT},
        {"start_new_session": True},
        {"process_group": 0},
        {"cwd": "/"},
        {"env": {"ONLY": "this", "ODD": "\udcff="}},
        {"env": {"PYTHONUNBUFFERED": "1", "PYTHONPATH": "/nowhere"}},
        {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}},
    ],
    ids=repr,
)
def test_it_gets_what_a_real_one_gets(options: dict[str, Any]) -> None:
    real, forked = (_told(python, "--option", "wörd", **options) for python in BOTH)
    assert forked == real
    assert forked["parent"] == os.getpid()


def test_it_inherits_what_we_have_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(PYTHON)  # a server that runs already
    monkeypatch.setenv("OA_TEST", "set")
    monkeypatch.chdir(tmp_path)
    umask, limits = os.umask(0o027), resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 22, limits[1]))
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        real, forked = (_told(python) for python in BOTH)
    finally:
        os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_STACK, limits)
        os.umask(umask)
    assert forked == real
    assert forked["descriptors"] == [0, 1, 2]
    assert (forked["environment"]["OA_TEST"], forked["folder"]) == ("set", str(tmp_path))


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("exit", 3),
        ("say why", 1),
        ("raise", 1),
        ("interrupt", -signal.SIGINT),
        ("abort", -signal.SIGABRT),
        ("child", 5),
        ("echo", 0),
    ],
)
def test_it_ends_as_a_real_one(what: str, status: int) -> None:
    real, forked = (
        subprocess.run([python, *PROGRAM, what], input="text", capture_output=True, text=True, check=False)
        for python in BOTH
    )
    assert forked.returncode == real.returncode == status
    assert forked.stdout == real.stdout
    assert forked.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


@each_way
def test_it_obeys_signals(python: str) -> None:
    command = [python, *PROGRAM, "wait"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waits\n"
            process.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == -number


@each_way
async def test_asyncio_starts_it_too(python: str) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(python, *PROGRAM, "echo", stdin=pipe, stdout=pipe) for _ in range(3)
    ]
    async with asyncio.timeout(PATIENCE_S):
        outputs = [(await process.communicate(b"%d" % n))[0] for n, process in enumerate(processes)]
    assert (outputs, [process.returncode for process in processes]) == ([b"0", b"1", b"2"], [0, 0, 0])


def test_it_has_a_terminal() -> None:
    real, forked = map(_told_a_terminal, BOTH)
    assert forked == real
    assert all(is_terminal for *_, is_terminal in forked["files"])


def _told_a_terminal(python: str) -> Any:
    ours, theirs = pty.openpty()
    with subprocess.Popen([python, *PROGRAM, "tell"], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        text = b""
        while text.count(b"{") != text.count(b"}") or not text:
            text += os.read(ours, 1 << 16)
        process.wait(PATIENCE_S)
    os.close(theirs)
    os.close(ours)
    return json.loads(text)


@each_way
def test_a_folder_that_is_not_there_is_told(python: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told:
        subprocess.run([python, *PROGRAM, "tell"], cwd=tmp_path / "none", check=False)
    assert told.value.filename == tmp_path / "none"


@only_linux
def test_which_are_forked() -> None:
    def forked(*command: str, **options: Any) -> bool:
        with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waits\n"
            arguments = psutil.Process(process.pid).cmdline()
            process.kill()
        return arguments[1:] != list(command[1:])

    assert forked(PYTHON, *PROGRAM, "wait")
    assert not forked(sys.executable, *PROGRAM, "wait")
    assert not forked(PYTHON, "-s", *PROGRAM, "wait")
    assert not forked(PYTHON, "-c", "import time; print('waits', flush=True); time.sleep(600)")
    assert not forked(PYTHON, *PROGRAM, "wait", pass_fds=[0])
    with starts_python():
        assert not forked(PYTHON, *PROGRAM, "wait")
    assert forked(PYTHON, *PROGRAM, "wait")


_PARENT = """
import sys
from pathlib import Path
from oa_localstack.processes.child import spawn
from oa_testing.fork_server import PYTHON, forks_python
with forks_python(), open(sys.argv[1], "ab") as log:
    process = spawn([PYTHON, "-P", "-m", "oa_testing.tests.forked", "wait"], env={}, log=log)
    while "waits" not in Path(sys.argv[1]).read_text(): pass
    print(process.pid, flush=True)
    input()
"""


@only_linux
def test_neither_it_nor_its_server_outlives_a_killed_parent(tmp_path: Path) -> None:
    """Where `spawn` ties it to us, as a stack's services."""
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        fork = psutil.Process(int(parent.stdout.readline()))
        below = psutil.Process(parent.pid).children(recursive=True)
        assert fork in below
        assert len(below) == 2  # the server is the other
        parent.kill()
    _, alive = psutil.wait_procs(below, PATIENCE_S)
    assert not alive


@only_linux
def test_a_server_ends_with_the_block_and_its_forks_do_not(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    with forks_python():
        process = subprocess.Popen([PYTHON, *PROGRAM, "wait"], stdout=subprocess.PIPE)
        assert len(set(psutil.Process().children()) - before) == 2
    assert {one.pid for one in set(psutil.Process().children()) - before} == {process.pid}
    with process:
        assert process.poll() is None
        process.kill()


@only_linux
def test_a_program_that_can_not_be_imported_is_told() -> None:
    with pytest.raises(ChildProcessError, match=r"the fork server of oa_testing\.none has ended"):
        subprocess.run([PYTHON, "-m", "oa_testing.none"], check=False)


@only_linux
def test_orphans_stay_nobodys(tmp_path: Path) -> None:
    """We adopt forks only: a test's orphans would be zombies below us for ever."""
    _told(PYTHON)
    program = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3).pid)"
    orphan = psutil.Process(int(subprocess.check_output([sys.executable, "-c", program])))
    assert orphan.ppid() != os.getpid()
    orphan.kill()
    assert not psutil.wait_procs([orphan], PATIENCE_S)[1]
