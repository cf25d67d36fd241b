"""When a new epoch is needed, and that whoever looks for a loss goes on looking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_platform.postgres.history import EpochCause, Found, NewEpoch, ServerHistory, judge
from oa_platform.postgres.lineage import Lineage
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.telemetry.metrics import REGISTRY
from oa_testing.waiting import eventually

A, B = ServerHistory(1, 1, 1), ServerHistory(1, 2, 1)


def found(
    epoch: str = "e1", seen_on: ServerHistory | None = A, server: ServerHistory = A, *missing: int
) -> Found[None]:
    return Found(epoch, seen_on, server, None, tuple(f"partition {one}" for one in missing))


class Broken:
    """A server of which one look fails because of a defect."""

    def __init__(self) -> None:
        self.looks = 0

    @asynccontextmanager
    async def history(self) -> AsyncIterator[Any]:
        """The first look fails, and no other one is answered."""
        self.looks += 1
        if self.looks == 1:
            raise KeyError("a column")
        await asyncio.Event().wait()
        yield


class Silent:
    """`lineage.Report`."""

    def given(self, new: NewEpoch, epoch: str, before: str) -> None:
        """See Report."""

    def changed(self, epoch: str) -> None:
        """See Report."""


async def test_a_look_that_fails_is_counted_and_made_again() -> None:
    def failures() -> float:
        event = {"event": "lineage_not_confirmed"}
        return REGISTRY.get_sample_value("oa_background_failures_total", event) or 0.0

    before, broken = failures(), Broken()
    lineage = Lineage[None](broken, lambda: "e2", Silent(), "replica", interval_s=0.001)
    running = asyncio.create_task(lineage.run())
    await eventually(lambda: broken.looks == 2 or running.done())
    assert (running.done(), failures()) == (False, before + 1)
    await cancel_and_wait(running)


def cause(verdict: NewEpoch | None) -> EpochCause | None:
    return None if verdict is None else verdict.cause


@pytest.mark.parametrize(
    ("known", "what", "expected"),
    [
        ((), found(seen_on=None), None),
        ((), found(), None),
        ((), found(server=B), EpochCause.HISTORY_UNKNOWN),
        (("e1",), found(), None),
        (("e1",), found("e1", A, B), None),
        (("e1",), found("e1", A, A, 3), EpochCause.EVENTS_MISSING),
        (("e1",), found("e1", A, B, 3), EpochCause.EVENTS_MISSING),
        (("e1",), found("e2", B, B, 3), None),
        (("e1",), found("e2", A, B, 3), EpochCause.HISTORY_UNKNOWN),
        (("e1", "e2"), found("e1"), EpochCause.EVENTS_MISSING),
    ],
)
def test_when_a_new_epoch_is_needed(known: tuple[str, ...], what: Found[None], expected: EpochCause | None) -> None:
    assert cause(judge(known, what)) == expected


@given(
    known=st.lists(st.sampled_from(["e1", "e2", "e3"]), unique=True).map(tuple),
    epoch=st.sampled_from(["e1", "e2", "e3", "e4"]),
    seen_on=st.sampled_from([None, A, B]),
    server=st.sampled_from([A, B]),
    missing=st.sets(st.integers(0, 3)),
)
def test_nothing_that_is_missing_stays_unsaid(
    known: tuple[str, ...], epoch: str, seen_on: ServerHistory | None, server: ServerHistory, missing: set[int]
) -> None:
    """Under an epoch that the replica follows, or has followed, cursors may exist of what is missing."""
    verdict = judge(known, found(epoch, seen_on, server, *missing))
    if epoch in known and (missing or epoch != known[-1]):
        assert cause(verdict) == EpochCause.EVENTS_MISSING
    if verdict is not None and seen_on not in (None, server):
        assert "timeline" in verdict.detail
