"""The buffer: nothing lost, nothing reordered within a stream, limits kept."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.sdk.runs.appender import RunAppender
from oa_worker.sdk.runs.buffer import EVENT_OVERHEAD_BYTES, EventBuffer
from openagents.runtime.v1.event_pb2 import CheckpointSaved, EventBody, Message, RunFinished, TextDelta
from openagents.runtime.v1.worker_service_pb2 import AppendEventsRequest, AppendEventsResponse, AppendRefused

MAX_TEXT = 10
Step = tuple[str, bytes] | int
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["out", "err", "message"]), st.binary(max_size=25)),
        st.integers(min_value=1, max_value=5),
    ),
    max_size=60,
)
_STREAMS = {"out": 1, "err": 2}


def event(kind: str, data: bytes) -> EventBody:
    if kind == "message":
        return EventBody(message=Message(text=data.hex()))
    return EventBody(text_delta=TextDelta(stream=_STREAMS[kind], data=data))  # type: ignore[arg-type]


def by_kind(events: list[EventBody]) -> dict[str, list[bytes]]:
    """What is between two messages, per stream: the order that is promised."""
    spans: dict[str, list[bytes]] = {"out": [b""], "err": [b""]}
    for each in events:
        if each.HasField("message"):
            for name, span in spans.items():
                span.append(each.message.text.encode() if name == "out" else b"")
                span.append(b"")
        else:
            name = "out" if each.text_delta.stream == 1 else "err"
            spans[name][-1] += each.text_delta.data
    return spans


@given(steps)
def test_what_goes_in_comes_out_in_order_within_the_limits(given_steps: list[Step]) -> None:
    buffer = EventBuffer(max_text_bytes=MAX_TEXT)
    put: list[EventBody] = []
    taken: list[EventBody] = []
    for step in given_steps:
        if isinstance(step, int):
            batch = buffer.take(max_events=step, max_bytes=60)
            assert len(batch) <= step
            sizes = [len(each.text_delta.data) or each.ByteSize() for each in batch]
            assert len(batch) <= 1 or sum(sizes) + EVENT_OVERHEAD_BYTES * len(batch) <= 60
            taken += batch
        else:
            put.append(event(*step))
            buffer.add(put[-1])
    while batch := buffer.take(max_events=500, max_bytes=1_000_000):
        taken += batch
    assert by_kind(taken) == by_kind(put)
    assert all(len(each.text_delta.data) <= MAX_TEXT for each in taken)
    assert (len(buffer), buffer.bytes, buffer.only_text) == (0, 0, True)


def test_text_joins_the_newest_of_its_stream_until_something_else_comes() -> None:
    buffer = EventBuffer(max_text_bytes=100)
    for kind, data in [("out", b"a"), ("err", b"x"), ("out", b"b"), ("message", b"m"), ("out", b"c")]:
        buffer.add(event(kind, data))
    assert not buffer.only_text
    texts = [each.text_delta.data for each in buffer.take(max_events=9, max_bytes=999)]
    assert texts == [b"ab", b"x", b"", b"c"]


def test_text_that_was_taken_does_not_grow() -> None:
    buffer = EventBuffer(max_text_bytes=100)
    buffer.add(event("out", b"a"))
    [first] = buffer.take(max_events=1, max_bytes=999)
    buffer.add(event("out", b"b"))
    [second] = buffer.take(max_events=1, max_bytes=999)
    assert (first.text_delta.data, second.text_delta.data) == (b"a", b"b")


def test_an_event_larger_than_an_append_goes_alone() -> None:
    buffer = EventBuffer(max_text_bytes=1000)
    buffer.add(event("message", b"m" * 200))
    buffer.add(event("out", b"a"))
    assert [len(buffer.take(max_events=9, max_bytes=50)) for _ in range(2)] == [1, 1]


async def test_a_log_that_takes_no_more_stays_closed_while_its_end_is_on_the_way() -> None:
    """What waits for an event to be stored must neither wait for ever nor turn without a pause."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def submit(request: AppendEventsRequest) -> AppendEventsResponse | AppendRefused:
        if not request.events[0].HasField("run_finished"):
            return AppendRefused(reason="payload_too_large", message="no")
        arrived.set()
        await go_on.wait()
        return AppendEventsResponse()

    appender = RunAppender("run_1", 1, submit, WorkerLimits(flush_interval_ms=1))
    await appender.emit(EventBody(checkpoint_saved=CheckpointSaved()))
    with pytest.raises(Refusal, match="payload_too_large"):
        await appender.pump()
    ending = asyncio.create_task(appender.append_finish(RunFinished()))
    await arrived.wait()
    for waiting in (appender.stored, lambda: appender.emit(EventBody(checkpoint_saved=CheckpointSaved()))):
        with pytest.raises(Refusal, match="payload_too_large"):
            await waiting()
    go_on.set()
    await ending
