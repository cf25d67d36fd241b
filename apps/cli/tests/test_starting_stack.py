"""A stack that another shell is starting."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from apps.cli.__main__ import run
from apps.cli.demo.parts import ready_stack
from apps.cli.exits import Exit
from apps.cli.program import Cli
from oa_localstack.installation.ports import Ports
from oa_localstack.installation.state import ProcessMark, StackState, remove_state, write_state

URL = "http://127.0.0.1:1"


@pytest.fixture
def starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackState:
    """The state of a stack of which nothing has started yet."""
    monkeypatch.setenv("OA_HOME", str(tmp_path))
    monkeypatch.delenv("OA_CONTROL_URL", raising=False)
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    state = StackState(mark, "starting", vars(Ports.from_env({})), {"control": URL, "khala": "ws://127.0.0.1:1"})
    write_state(tmp_path, state)
    return state


def test_its_status_is_not_ready(starting: StackState, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json"]) == Exit.UNREACHABLE
    shown = json.loads(capfd.readouterr().out)
    assert (shown["running"], shown["phase"], shown["processes"]) == (True, "starting", [])


async def test_a_demo_waits_until_it_is_ready(starting: StackState, tmp_path: Path) -> None:
    taken = ready_stack(Cli(), lambda event: pytest.fail(str(event)))
    waiting = asyncio.create_task(taken.__aenter__())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    write_state(tmp_path, replace(starting, phase="ready"))
    stack = await waiting
    assert (stack.urls["control"], stack.own) == (URL, None)
    await taken.__aexit__(None, None, None)
    remove_state(tmp_path)
