"""The client of runtime's WorkerWatchService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc.aio

from oa_platform.health.failures import refusal_from_rpc_error
from openagents.runtime.v1 import worker_pb2, worker_watch_service_pb2_grpc
from openagents.runtime.v1 import worker_watch_service_pb2 as pb
from services.projector.workers.domain import ToldWorker

_ENDED = (worker_pb2.WORKER_STATUS_STOPPED, worker_pb2.WORKER_STATUS_LOST)


class GrpcWorkerSource:
    """`app.WorkerSource` on a channel to runtime."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = worker_watch_service_pb2_grpc.WorkerWatchServiceStub(channel)

    async def watch(self, known: Sequence[str]) -> AsyncIterator[Sequence[ToldWorker]]:
        """See WorkerSource."""
        call = self._stub.WatchWorkers(pb.WatchWorkersRequest(worker_ids=known))
        try:
            async for message in call:
                yield [_told(worker) for worker in message.workers]
        except grpc.aio.AioRpcError as error:
            raise refusal_from_rpc_error(error) from error
        finally:
            call.cancel()


def _told(worker: worker_pb2.Worker) -> ToldWorker:
    """The worker in a message. It has no map, so each value has exactly one deterministic serialization."""
    document = worker.SerializeToString(deterministic=True)
    return ToldWorker(worker.worker_id, worker.org_id, worker.status in _ENDED, document)
