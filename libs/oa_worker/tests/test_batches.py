"""What a worker has to say at one time goes as one message, where the authority takes that; and comes as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import pytest
from google.protobuf.struct_pb2 import ListValue, Value

from oa_base.refusal import Refusal
from oa_wire.batches import MAX_BATCH_BYTES, batches
from oa_worker.sdk.transport.connection import Attachment
from oa_worker.sdk.transport.wire import check_nesting
from openagents.runtime.v1.event_pb2 import EventBody, ToolResult
from openagents.runtime.v1.worker_service_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    AttachRequest,
    AttachRequestBatch,
    AttachResponse,
    AttachResponseBatch,
    WorkerAttached,
)


class Call:
    """One stream, at the worker's end; `answers` come, and then it breaks."""

    def __init__(self, answers: Sequence[AttachResponse] = ()) -> None:
        self.written: list[AttachRequest] = []
        self._answers = list(answers)

    async def write(self, request: AttachRequest) -> None:
        self.written.append(request)

    async def read(self) -> AttachResponse:
        if not self._answers:
            raise Refusal("unavailable", "the stream is over")
        return self._answers.pop(0)

    async def done_writing(self) -> None:
        """Nothing more comes."""

    def cancel(self) -> None:
        """It ends."""


def attachment(call: Call, *, takes_batches: bool = True) -> Attachment:
    return Attachment(cast("Any", None), "", cast("Any", call), WorkerAttached(takes_batches=takes_batches))


def append(number: int, key: str = "k") -> AttachRequest:
    return AttachRequest(append=AppendEventsRequest(request_id=number, idempotency_key=key))


@pytest.mark.parametrize("takes_batches", [True, False])
async def test_what_is_queued_goes_together_where_it_may(takes_batches: bool) -> None:
    call = Call()
    stream = attachment(call, takes_batches=takes_batches)
    for number in range(3):
        stream.send(append(number))
    await stream.close()
    said = [one for request in call.written for one in request.batch.requests or (request,)]
    assert said == [append(number) for number in range(3)]
    assert len(call.written) == (1 if takes_batches else 3)


async def test_one_message_goes_as_it_is() -> None:
    call = Call()
    stream = attachment(call)
    stream.send(append(1))
    await stream.close()
    assert call.written == [append(1)]


async def test_what_comes_together_is_heard_one_by_one() -> None:
    answers = [AttachResponse(appended=AppendEventsResponse(request_id=number)) for number in range(4)]
    together = AttachResponse(batch=AttachResponseBatch(responses=answers[1:3]))
    stream = attachment(Call([answers[0], together, answers[3]]))
    heard: list[AttachResponse] = []
    with suppress(Refusal):  # the stream breaks
        async for message in stream.messages():
            heard.append(message)  # noqa: PERF401 - nothing would be left of a list that is not whole
    stream.abort()
    assert heard == answers


def test_a_batch_is_no_larger_than_it_may_be() -> None:
    small, half, large = append(1), append(2, "x" * (MAX_BATCH_BYTES // 2)), append(3, "x" * (MAX_BATCH_BYTES + 1))
    assert list(batches([])) == []
    assert list(batches([small, half, small, half])) == [[small, half, small], [half]]
    assert list(batches([small, large, small])) == [[small], [large], [small]]
    exact = [small] * 3
    assert list(batches(exact, 3 * small.ByteSize())) == [exact]
    assert list(batches(exact, 3 * small.ByteSize() - 1)) == [exact[:2], exact[2:]]


def test_an_event_that_may_be_sent_can_be_read_in_a_batch_too() -> None:
    levels = 0
    with suppress(Refusal):
        while levels < 1_000:
            event = nested(levels + 1)
            check_nesting(event)
            levels += 1
    assert 40 < levels < 1_000
    sent = AttachRequest(append=AppendEventsRequest(events=[nested(levels)]))
    batch = AttachRequest(batch=AttachRequestBatch(requests=[sent, AttachRequest()]))
    assert AttachRequest.FromString(batch.SerializeToString()) == batch


def nested(levels: int) -> EventBody:
    """An event whose JSON has this many levels."""
    value = Value(number_value=1)
    for _ in range(levels):
        value = Value(list_value=ListValue(values=[value]))
    return EventBody(tool_result=ToolResult(call_id="c", result=value))
