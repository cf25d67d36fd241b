"""A Codex thread is at one turn, whichever of the workers that share its home has it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.codex.lock import TurnLock, codex_home
from oa_worker.adapters.codex.tests import one_turn
from oa_worker.adapters.codex.tests.rig import WELL, Log, assignment, scripted
from oa_worker.agents.failures import AgentFailure


@asynccontextmanager
async def other_worker(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is in the middle of a turn of `thread-1`. Its Codex's home is in `folder`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, one_turn.__file__, str(folder)),
        env={"PYTHONPATH": ":".join(entry for entry in sys.path if entry)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_two_workers_that_share_a_home(tmp_path: Path) -> None:
    home = tmp_path / "codex-home"
    async with asyncio.timeout(PATIENCE_S), other_worker(tmp_path) as other:
        mine = scripted(tmp_path / "mine", {"thread/resume": WELL["thread/start"]}, home=home)
        elsewhere = scripted(tmp_path / "elsewhere", {"thread/resume": WELL["thread/start"]})
        turn = {"prompt": "q", "resume": "thread-1"}
        busy = await mine.run(assignment(Log(), turn), Log().emit)
        assert busy.reason == "codex_thread_busy"
        assert not (tmp_path / "mine" / "heard").exists(), "no app-server was started"
        assert (await elsewhere.run(assignment(Log(), turn), Log().emit)).reason == "", "another home, another thread"
        other.kill()
        await other.wait()
        while (again := await mine.run(assignment(Log(), turn), Log().emit)).reason == "codex_thread_busy":
            await asyncio.sleep(0.02)  # its app-server has a moment more
        assert again.reason == ""


def test_a_thread_that_gets_its_name_later(tmp_path: Path) -> None:
    with closing(TurnLock.take(tmp_path, "")) as lock, closing(TurnLock.take(tmp_path, "")):
        lock.name("../a thread")
        with pytest.raises(AgentFailure) as busy:
            TurnLock.take(tmp_path, "../a thread")
        assert busy.value.reason == "codex_thread_busy"
        TurnLock.take(tmp_path, "another").close()
    TurnLock.take(tmp_path, "../a thread").close()
    (folder,) = tmp_path.iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".lock"}, "nothing without a name is left"


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(AgentFailure) as failed:
        TurnLock.take(tmp_path / "home", "t")
    assert failed.value.reason == "codex_not_started"


def test_where_codex_has_its_threads() -> None:
    assert codex_home({"CODEX_HOME": "/h", "HOME": "/u"}, "/f") == Path("/h")
    assert codex_home({"CODEX_HOME": "h"}, "/f") == Path("/f/h")
    assert codex_home({"CODEX_HOME": "", "HOME": "/u"}, "/f") == Path("/u/.codex")
    assert codex_home({}, "/f") == Path.home() / ".codex"
