"""What a replica does for its workers while it, or its database, can't hear them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

from oa_base.refusal import Refusal
from oa_runlog.workers import WorkerStatus
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from services.runtime.tests.rig import (
    QUICK_WORKERS,
    FakeWorker,
    keep_beating,
    replica,
    runtime_settings,
    somebody,
)
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import Seen, WorkerRecord
from services.runtime.workers.app.watchdog import Watchdog
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.notices import DrainingNotice
from services.runtime.workers.domain.vigil import LossCause
from services.runtime.workers.limits import WorkerLimits
from services.runtime.workers.metrics import WORKERS_LOST, WORKERS_SENT_AWAY

LIMITS = WorkerLimits()
PATIENCE_S = 90


async def test_a_replica_that_is_not_ready_loses_nobody_until_it_is(runtime_database: Database) -> None:
    who, is_ready = somebody(), asyncio.Event()

    async def keys() -> None:
        if not is_ready.is_set():
            raise Refusal("unavailable", "no keys yet; wait")

    silent = WORKERS_LOST.labels(LossCause.SILENT)
    async with replica(runtime_settings(runtime_database, workers=QUICK_WORKERS), who.key) as runtime:
        runtime.readiness.add("keys", keys)
        worker = FakeWorker(runtime, who)
        await worker.attach()
        run_id = (await runtime.create(who)).run_id
        await worker.next("assignment")
        before = value_of(silent)
        await asyncio.sleep(3 * QUICK_WORKERS.lost_after_ms / 1000)
        assert (value_of(silent), (await runtime.run(who, run_id)).attempt) == (before, 1)

        is_ready.set()
        other = FakeWorker(runtime, who)
        await other.attach()
        beating = asyncio.create_task(keep_beating(other))
        async with asyncio.timeout(PATIENCE_S):
            again = (await other.next("assignment")).assignment
        beating.cancel()
        assert (again.run.run_id, again.run.attempt) == (run_id, 2)
        # It is counted when its loss is stored, as this replica hears: the run may be given away before that.
        await eventually(lambda: value_of(silent) == before + 1)


class OneWorker:
    """A store that can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.heard: list[dict[str, str]] = []
        self.left: dict[str, str] = {}

    async def look(self, attached: Mapping[str, str], heard: Mapping[str, str], *, accepts: bool) -> Seen:
        if self.is_away:
            raise Refusal("unavailable", "away; try again")
        self.heard.append(dict(heard))
        return Seen({}, [], self.left)

    async def lose_workers(self, silent: object) -> list[str]:
        return []

    async def leases_of_ended_workers(self, limit: int, left_out: object) -> list[object]:
        return []

    async def canceling_runs(self) -> list[str]:
        return []

    async def overdue_runs(self, limit: int, left_out: object) -> list[str]:
        return []

    async def forget_replicas(self, absent: object) -> None:
        pass


class Scene:
    """A watchdog whose clock is set by hand, and a worker."""

    def __init__(self) -> None:
        self.store = OneWorker()
        self.now_s = 0.0
        self.attached = AttachedWorkers(cast("Any", None), LIMITS, 10_000)
        store: Any = self.store
        self.workers = Workers(cast("Any", None), self.attached, store, LIMITS)
        self.watchdog = Watchdog(
            cast("Any", None), self.workers, self.attached, store, LIMITS, 10_000, self._accepts, lambda: self.now_s
        )
        worker = WorkerRecord("wrk_1", "sva_1", "org_1", "n", ("exec",), 1, WorkerStatus.STARTING)
        self.attachment = Attachment(worker, "att_1", time.monotonic(), 8)
        self.attached.add(self.attachment)

    async def _accepts(self) -> bool:
        return True


async def test_heartbeats_that_could_not_be_stored_are_stored_by_a_later_look() -> None:
    scene = Scene()
    scene.workers.heartbeat(scene.attachment, [])
    scene.store.is_away = True
    for second in range(3):
        scene.now_s = second
        await scene.watchdog.look_once()
    assert not scene.attachment.is_over
    scene.store.is_away = False
    await scene.watchdog.look_once()
    await scene.watchdog.look_once()
    assert scene.store.heard == [{"wrk_1": "att_1"}, {}]
    assert scene.attachment.status is WorkerStatus.RUNNING


async def test_a_replica_whose_looks_fail_for_half_of_the_limit_sends_its_workers_elsewhere_once() -> None:
    scene = Scene()
    before = value_of(WORKERS_SENT_AWAY)
    half_s = LIMITS.late_after_ms / 1000
    scene.store.is_away = True
    for scene.now_s in (0, half_s - 1):
        await scene.watchdog.look_once()
    assert scene.attachment.outbox.empty()
    for scene.now_s in (half_s, half_s + 1, 10 * half_s):
        await scene.watchdog.look_once()
    assert scene.attachment.outbox.get_nowait() == DrainingNotice(LIMITS.drain_reconnect_ms)
    assert scene.attachment.outbox.empty()
    assert value_of(WORKERS_SENT_AWAY) == before + 1

    scene.store.is_away = False
    await scene.watchdog.look_once()
    scene.store.is_away = True
    await scene.watchdog.look_once()
    assert scene.attachment.outbox.empty(), "the time begins anew"


async def test_a_stream_that_does_not_speak_for_its_worker_any_more_ends() -> None:
    scene = Scene()
    scene.store.left = {"wrk_1": "an older one"}
    await scene.watchdog.look_once()
    assert not scene.attachment.is_over
    scene.store.left = {"wrk_1": "att_1"}
    await scene.watchdog.look_once()
    assert isinstance(scene.attachment.ended, Refusal)
    assert scene.attachment.ended.reason == "worker_lost"


def test_the_absence_of_the_authority_is_noticed_by_two_looks_at_least() -> None:
    assert WorkerLimits().absent_after_ms == 7_500
    assert WorkerLimits(lost_after_ms=5_000).absent_after_ms == 2_000
    assert WorkerLimits(lost_after_ms=5_000).late_after_ms == 2_500
