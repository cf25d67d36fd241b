"""What is said while nobody has taken a run: how to start a worker that does, and only while that can be seen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from apps.cli.following import no_worker
from apps.cli.following.no_worker import NoWorkerHint
from apps.cli.output import Output
from apps.cli.tests.hostile import screens
from oa_client.follow.items import Broken, Item, Seen
from oa_runlog import events
from oa_runlog.events import (
    AgentSpec,
    Concurrency,
    QueuePolicy,
    RunCreated,
    RunEvent,
    RunSpec,
    RunStarted,
    ThreadPolicy,
)
from oa_testing.waiting import PATIENCE_S

CREATED = "usr_01JD8V0000000000000000000A", "org_01JD8V0000000000000000000A"
WORKER = "wrk_01JD8V0000000000000000000A"


def seen(body: events.EventBody) -> Seen:
    """An event that came now."""
    return Seen(RunEvent("run_01JD8V0000000000000000000A", 1, 0, 0, body), b"", live=True)


def created(adapter: str) -> Seen:
    """The first event of a run of the adapter."""
    return seen(RunCreated(*CREATED, RunSpec(adapter, AgentSpec("{}"))))


async def said(monkeypatch: pytest.MonkeyPatch, *items: Item) -> str:
    """What is said after a while in which this was heard."""
    monkeypatch.setattr(no_worker, "NO_WORKER_HINT_S", 0.0)
    _, err = screens(monkeypatch, terminal=False)
    hint = NoWorkerHint(Output(), lambda: 1_800_000_000.0)
    for item in items:
        hint.heard(item)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(10):
            await asyncio.sleep(0)
        hint.cancel()
        await asyncio.gather(hint._task, return_exceptions=True)
    return err.written.decode().strip()


@pytest.mark.parametrize(
    ("adapter", "start"),
    [
        ("exec", "In another shell: oa worker start --adapter exec"),
        ("codex", "In another shell: oa worker start --adapter codex"),
        ("greet", "Start one that has the agent greet."),
    ],
)
async def test_what_to_start_is_said_of_the_runs_adapter(
    adapter: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await said(monkeypatch, created(adapter)) == f"No worker has taken it yet. {start}"


async def test_nothing_is_said_of_workers_before_the_run_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    words = await said(monkeypatch)
    assert words.startswith("The connection has not been made yet;")
    assert "worker" not in words


async def test_once_the_run_is_seen_late_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_worker, "NO_WORKER_HINT_S", 0.0)
    _, err = screens(monkeypatch, terminal=False)
    hint = NoWorkerHint(Output(), lambda: 1_800_000_000.0)
    async with asyncio.timeout(PATIENCE_S):
        while not err.written:
            await asyncio.sleep(0)
        hint.heard(created("exec"))
        await hint._task
    assert err.written.decode().splitlines()[1].startswith("No worker has taken it yet.")


async def test_what_is_stored_here_does_not_say_whether_a_worker_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await said(monkeypatch, replace(created("exec"), live=False)) == ""


@pytest.mark.parametrize(
    ("waits", "why"),
    [
        (
            {"queue": QueuePolicy(not_before_ns=1_900_000_000 * 10**9)},
            "It waits until 2030-03-17T17:46:40Z, as its --not-before says.",
        ),
        (
            {"queue": QueuePolicy(concurrency=Concurrency("deploy", 2))},
            "It may wait for others: at most 2 with its concurrency key run at a time.",
        ),
        (
            {"thread_id": "t", "thread_policy": ThreadPolicy.ENQUEUE},
            "It may wait for an older run of its thread.",
        ),
    ],
)
async def test_a_run_that_waits_on_purpose(waits: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec("exec", AgentSpec("{}"), **waits)
    assert await said(monkeypatch, seen(RunCreated(*CREATED, spec))) == f"No worker has taken it yet. {why}"


@pytest.mark.parametrize(
    "more",
    [
        seen(RunStarted(WORKER, 1, 1)),
        Broken("clock_skew: The clock of khala_gateway is 30000 ms behind that of control."),
    ],
    ids=["a worker has it", "nobody can see"],
)
async def test_it_is_not_said_once_more_is_known(more: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await said(monkeypatch, created("exec"), more) == ""
