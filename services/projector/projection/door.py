"""The client of runtime's LogService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import grpc.aio

from oa_base.refusal import Refusal
from oa_platform.health.failures import refusal_from_rpc_error
from oa_runlog.wire import stored_event
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2 as pb
from openagents.runtime.v1 import log_service_pb2_grpc
from services.projector.projection.domain import HaltCause, LogBatch, LogRefused, LogState

DESCRIBE_TIMEOUT_S = 5.0

# Reasons for which runtime refuses a position when our checkpoints do not belong to its log.
_LINEAGE = {"epoch_mismatch": HaltCause.EPOCH_CHANGED, "cursor_ahead_of_head": HaltCause.REWOUND}


class GrpcLogSource:
    """`app.LogSource` on a channel to runtime."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = log_service_pb2_grpc.LogServiceStub(channel)

    async def describe(self) -> LogState:
        """Where the log stands."""
        try:
            found = await self._stub.DescribeLog(pb.DescribeLogRequest(), timeout=DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise refusal_from_rpc_error(error) from error
        return LogState(found.epoch, {head.partition: head.position for head in found.heads})

    async def tail(self, epoch: str, after: Mapping[int, int]) -> AsyncIterator[LogBatch]:
        """Everything after the positions; ends when runtime ends the stream."""
        positions = [cursor_pb2.LogPosition(partition=one, position=at) for one, at in sorted(after.items())]
        call = self._stub.TailLog(pb.TailLogRequest(epoch=epoch, after=positions))
        try:
            async for message in call:
                if message.epoch != epoch:
                    raise LogRefused(HaltCause.EPOCH_CHANGED, f"entries of epoch {message.epoch} came, not of {epoch}")
                batch = _batch(message)
                if batch is not None:
                    yield batch
        except grpc.aio.AioRpcError as error:
            raise _refused(refusal_from_rpc_error(error)) from error
        finally:
            call.cancel()


def _refused(refusal: Refusal) -> Exception:
    cause = _LINEAGE.get(refusal.reason)
    return refusal if cause is None else LogRefused(cause, refusal.message)


def _batch(message: pb.TailLogResponse) -> LogBatch | None:
    """The entries in a message, None when it holds none. Raises LogRefused(undecodable)."""
    if not message.events:
        return None
    if message.first_position == 0:
        raise LogRefused(HaltCause.UNDECODABLE, f"partition {message.partition}: entries at position 0")
    try:
        events = tuple(map(stored_event, message.events))
    except Refusal as error:
        where = f"partition {message.partition} from position {message.first_position}"
        raise LogRefused(HaltCause.UNDECODABLE, f"{where}: {error}") from error
    return LogBatch(message.partition, message.first_position, events, message.traceparent)
