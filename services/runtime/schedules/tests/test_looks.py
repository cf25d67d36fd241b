"""Looks after schedules of which more can't be handled than may be left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.quarantine import Quarantine
from services.runtime.schedules.app.clock import ScheduleClock
from services.runtime.schedules.domain.schedule import Overlap, Schedule, Standing
from services.runtime.schedules.domain.timing import IntervalTiming
from services.runtime.schedules.limits import ScheduleLimits

NOW = datetime(2026, 3, 28, 20, tzinfo=UTC)


def schedule(schedule_id: str) -> Schedule:
    """Due now."""
    timing = IntervalTiming(3_600_000, NOW)
    one = (schedule_id, "org_1", "usr_1", schedule_id, timing, Overlap.ALLOW, 3_600_000, b"")
    return Schedule(*one, create_time=NOW - timedelta(days=1), next_time=NOW)


class DueOnes:
    """Schedules that stay due, as long as nobody can settle their times."""

    now = NOW

    def __init__(self, *schedule_ids: str) -> None:
        self._all = [schedule(one) for one in schedule_ids]
        self.schedules: list[Schedule] = []
        self.looks = 0

    @asynccontextmanager
    async def due(self, limit: int, except_for: Sequence[str], broken: Quarantine) -> AsyncIterator[DueOnes]:
        self.looks += 1
        if self.looks > 100:
            pytest.fail("the look never ends")
        left_out = {*except_for, *broken.ids}
        self.schedules = [one for one in self._all if one.schedule_id not in left_out][:limit]
        yield self

    async def standings(self, due: Sequence[object]) -> list[Standing]:
        return [Standing(last_ended=True)] * len(due)

    async def late_s(self) -> float:
        return 0.0

    async def forget_deleted(self, *_: object) -> None: ...


@pytest.mark.parametrize("page", [1, 16])
async def test_a_look_ends_though_more_schedules_break_than_may_be_left_out(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(ScheduleClock, "_move", breaks)
    store, nothing = DueOnes("sch_1", "sch_2", "sch_3"), cast("Any", None)
    limits = ScheduleLimits(page=page, quarantine=QuarantineSettings(max_things=1))
    await ScheduleClock(cast("Any", store), nothing, nothing, limits).look()
    assert store.looks < 100
