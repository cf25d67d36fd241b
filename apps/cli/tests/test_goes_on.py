"""What Ctrl-C says of a run that has ended, and whose connection is being closed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import click
import pytest

from apps.cli.commands.local import conversation
from apps.cli.commands.local.conversation import Conversation
from apps.cli.commands.runs import runs
from apps.cli.commands.runs.runs import follow
from oa_client.follow.items import Seen
from oa_runlog.events import Outcome, RunEvent, RunFinished, RunStarted
from oa_testing.waiting import eventually

RUN = "run_01K00000000000000000000000"
STARTED, FINISHED = RunStarted("wrk_1", 1, 1), RunFinished(Outcome.CANCELED, "canceled", "")


class Tail:
    """Shows one event of the run. `reached` is set when it waits for more, or closes its connection."""

    def __init__(self, body: RunStarted | RunFinished) -> None:
        self.reached = asyncio.Event()
        self._body = body

    def __call__(self, *_: object, **__: object) -> Tail:
        return self

    async def items(self) -> AsyncGenerator[Seen, None]:
        try:
            yield Seen(RunEvent(RUN, 1, 0, 0, self._body), b"", live=True)
        finally:
            self.reached.set()
            await asyncio.Event().wait()


def a_cli(folder: Path) -> MagicMock:
    cli = MagicMock(goes_on="")
    cli.output.gone = False
    cli.site.folder = folder
    return cli


@pytest.mark.parametrize(("body", "goes_on"), [(STARTED, True), (FINISHED, False)], ids=["at work", "over"])
async def test_an_interrupted_follow_says_whether_the_run_goes_on(
    body: RunStarted | RunFinished, goes_on: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli, tail = a_cli(tmp_path), Tail(body)
    monkeypatch.setattr(runs, "RunTail", tail)
    following = asyncio.create_task(follow(cli, AsyncMock(), RUN))
    await tail.reached.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert ("goes on" in cli.goes_on) == goes_on


@pytest.mark.parametrize(("body", "goes_on"), [(STARTED, True), (FINISHED, False)], ids=["at work", "over"])
async def test_an_interrupted_turn_says_whether_it_goes_on(
    body: RunStarted | RunFinished, goes_on: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli, tail, client = a_cli(tmp_path), Tail(body), AsyncMock()
    client.commands.create_run.return_value.run_id = RUN
    monkeypatch.setattr(conversation, "RunTail", tail)
    monkeypatch.setattr(conversation, "remember_started", MagicMock())
    typed = AsyncMock(ended=False)
    typed.next.side_effect = asyncio.Event().wait
    monkeypatch.setattr(conversation, "TypedLines", lambda: typed)
    talking = asyncio.create_task(Conversation(cli, client, {}, "", "").hold("Say hello."))
    await tail.reached.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await eventually(lambda: client.commands.cancel.await_count > 0)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(click.Abort):
        await talking
    assert ("goes on" in cli.goes_on) == goes_on
