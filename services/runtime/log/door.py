"""LogService: the log itself, for the services that derive their data from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from oa_base.refusal import Refusal
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import log_service_pb2
from openagents.runtime.v1.log_service_pb2_grpc import LogServiceServicer
from services.runtime.authority.app import Lineage
from services.runtime.log.app.ports import LogPages
from services.runtime.log.app.tail import Tail


class LogApi(LogServiceServicer):
    """Tails and describes the log."""

    def __init__(self, tail: Tail, reader: LogPages, lineage: Lineage) -> None:
        self._tail = tail
        self._reader = reader
        self._lineage = lineage

    async def DescribeLog(
        self, request: log_service_pb2.DescribeLogRequest, context: Any
    ) -> log_service_pb2.DescribeLogResponse:
        """Return the log's epoch and heads, as the database has them."""
        epoch, heads = self._lineage.epoch, await self._reader.heads()
        positions = [cursor_pb2.LogPosition(partition=p, position=heads[p].position) for p in sorted(heads)]
        return log_service_pb2.DescribeLogResponse(epoch=epoch, heads=positions)

    async def TailLog(
        self, request: log_service_pb2.TailLogRequest, context: Any
    ) -> AsyncIterator[log_service_pb2.TailLogResponse]:
        """Stream everything after the given positions, without end. The reader paces the stream.

        If a partition can't be read, the stream ends, but only after the other partitions have had their turn:
        otherwise they would stop with it. The stream also ends when the epoch does.
        """
        epoch = self._lineage.epoch
        cursors = await self._cursors(request)
        with self._tail.bell() as bell:
            unread: set[int] = set()
            while True:
                unread |= bell.moved() & cursors.keys()
                if epoch != self._lineage.epoch:
                    raise _other_epoch(self._lineage.epoch)
                failure = None
                for partition in sorted(unread):
                    after = cursors[partition]
                    try:
                        events = await self._tail.read(partition, after)
                    except Refusal as refusal:
                        failure = refusal
                        continue
                    if not events:
                        unread.discard(partition)
                        continue
                    cursors[partition] = last = after + len(events)
                    yield log_service_pb2.TailLogResponse(
                        epoch=epoch,
                        partition=partition,
                        first_position=after + 1,
                        events=events,
                        traceparent=self._tail.traced(partition, after, last),
                    )
                if failure is not None:
                    raise failure
                if not unread:
                    await bell.wait()

    async def _cursors(self, request: log_service_pb2.TailLogRequest) -> dict[int, int]:
        """Partition -> position, checked against the log. Raises Refusal."""
        epoch = self._lineage.epoch
        if request.epoch != epoch and (request.epoch or any(place.position for place in request.after)):
            raise _other_epoch(epoch)
        heads = await self._reader.heads()
        cursors: dict[int, int] = {}
        for index, place in enumerate(request.after):
            field = f"after[{index}]"
            if place.partition not in heads or place.partition in cursors:
                raise Refusal(
                    "invalid_value",
                    "there is no such partition, or it is named twice; name those of DescribeLog once",
                    field=f"{field}.partition",
                )
            if place.position > heads[place.partition].position:
                head = {"head": str(heads[place.partition].position)}
                text = "the position lies beyond the log; start at its head or before it"
                raise Refusal("cursor_ahead_of_head", text, field=f"{field}.position", metadata=head)
            cursors[place.partition] = place.position
        return cursors


def _other_epoch(epoch: str) -> Refusal:
    text = "the positions count in another lineage of the log; start again from 0"
    return Refusal("epoch_mismatch", text, field="epoch", metadata={"epoch": epoch})
