"""WorkerWatchService: the state of workers, for services that derive data from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from openagents.runtime.v1 import worker_pb2
from openagents.runtime.v1 import worker_watch_service_pb2 as pb
from openagents.runtime.v1.worker_watch_service_pb2_grpc import WorkerWatchServiceServicer
from services.runtime.worker_watch.app import WorkerWatch
from services.runtime.worker_watch.domain import StandingWorker


class WorkerWatchApi(WorkerWatchServiceServicer):
    """Serves the state of workers."""

    def __init__(self, watch: WorkerWatch, page: int) -> None:
        """`page`: maximum number of workers in one message."""
        self._watch = watch
        self._page = page

    async def WatchWorkers(
        self, request: pb.WatchWorkersRequest, context: Any
    ) -> AsyncIterator[pb.WatchWorkersResponse]:
        """Stream all workers that have not ended, then those that have changed."""
        async with aclosing(self._watch.watch(list(request.worker_ids))) as told:
            async for workers in told:
                for start in range(0, max(1, len(workers)), self._page):
                    page = [_worker(worker) for worker in workers[start : start + self._page]]
                    yield pb.WatchWorkersResponse(workers=page)


def _worker(worker: StandingWorker) -> worker_pb2.Worker:
    message = worker_pb2.Worker(
        worker_id=worker.worker_id,
        service_account_id=worker.service_account_id,
        org_id=worker.org_id,
        name=worker.name,
        adapters=worker.adapters,
        max_concurrent_runs=worker.max_concurrent_runs,
        status=worker_pb2.WorkerStatus.Value(f"WORKER_STATUS_{worker.status.name}"),
        run_ids=worker.run_ids,
    )
    message.attach_time.FromNanoseconds(worker.attached_ns)
    return message
