"""A worker is cut off from one of two replicas, while both live: it attaches at the other, and its run goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from oa_worker import Worker
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.sdk.notices import Attached, Notice
from oa_worker.sdk.transport.tokens import WorkerToken
from oa_worker.tests.scripts import Patient
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2
from services.runtime.tests.rig import QUICK_WORKERS, Replica, Somebody, replica, runtime_settings, somebody
from services.runtime.workers.domain.vigil import LossCause
from services.runtime.workers.metrics import WORKERS_LOST

LIMITS = WorkerLimits(
    flush_interval_ms=5, reconnect_min_ms=10, reconnect_max_ms=50, keepalive_interval_ms=1_000, keepalive_timeout_ms=300
)
WORKERS = replace(QUICK_WORKERS, quiet_after_ms=3_000, lost_after_ms=10_000)
LONG_S = 1.2 * WORKERS.lost_after_ms / 1000
"""Longer than a worker stays that nobody hears."""
PATIENCE_S = 90.0


class Address:
    """Tokens of somebody, for the address that control names at the moment."""

    def __init__(self, who: Somebody, address: str) -> None:
        self._who = who
        self.address = address

    async def get(self) -> WorkerToken:
        ((_, bearer),) = self._who.as_worker()
        return WorkerToken(bearer.removeprefix("Bearer "), 600, self.address)


async def _until(runtime: Replica, who: Somebody, run_id: str, status: run_pb2.RunStatus.ValueType) -> run_pb2.Run:
    async with asyncio.timeout(PATIENCE_S):
        while (run := await runtime.run(who, run_id)).status != status:
            await asyncio.sleep(0.05)
    assert isinstance(run, run_pb2.Run)
    return run


async def test_a_worker_that_one_replica_does_not_hear_goes_on_at_the_other(
    runtime_database: Database, fault_proxies: FaultProxies
) -> None:
    who, adapter, notices = somebody(), Patient(), list[Notice]()
    adapter.name = "exec"
    settings = runtime_settings(runtime_database, workers=WORKERS)
    before = sum(value_of(WORKERS_LOST.labels(cause)) for cause in LossCause)
    async with replica(settings, who.key) as one, replica(settings, who.key) as two:
        proxy = await fault_proxies("127.0.0.1", one.server.port)
        tokens = Address(who, f"127.0.0.1:{proxy.port}")
        worker = Worker("test", [adapter], tokens, limits=LIMITS, notify=notices.append)
        working = asyncio.create_task(worker.run())
        run_id = (await two.create(who)).run_id
        await _until(two, who, run_id, run_pb2.RUN_STATUS_RUNNING)

        tokens.address = f"127.0.0.1:{two.server.port}"
        proxy.stall()
        await asyncio.sleep(LONG_S)
        assert isinstance(notices[-1], Attached)
        assert notices[-1].runtime_address == tokens.address

        request = run_service_pb2.CancelRunRequest(run_id=run_id, reason="enough")
        await two.runs.CancelRun(request, metadata=who.as_person())
        run = await _until(two, who, run_id, run_pb2.RUN_STATUS_CANCELED)
        assert (run.attempt, run.finish.reason) == (1, "canceled")
        assert run.finish.outcome == event_pb2.RUN_OUTCOME_CANCELED
        assert len(adapter.assignments) == 1
        assert adapter.stopped == 0
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert sum(value_of(WORKERS_LOST.labels(cause)) for cause in LossCause) == before
