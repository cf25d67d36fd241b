"""How old live events are when they are written, and the end of their trace."""

import time

from oa_base.clock import SECOND_NS
from oa_khala import frames
from oa_khala.frames import Cursor
from oa_platform.tests.traces import collected
from oa_testing.metrics import value_of
from oa_testing.waiting import eventually
from oa_topics.watcher import Origin
from services.khala_gateway.feeds.app.arrivals import DELIVER, FIRST_WRITTEN
from services.khala_gateway.feeds.metrics import DELIVERY_AGE, HOLES
from services.khala_gateway.tests.fake_upstream import FakeUpstream, Faults
from services.khala_gateway.tests.harness import Stack, T, running

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = f"00-{TRACE_ID}-{SPAN_ID}-01"


def ages() -> tuple[int, float]:
    """How many were observed, and their sum in seconds."""
    (family,) = DELIVERY_AGE.collect()
    values = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples if not sample.labels}
    return int(values["count"]), values["sum"]


def ago(seconds: float, traceparent: str = "") -> Origin:
    return Origin(time.time_ns() - round(seconds * SECOND_NS), traceparent)


async def _three_at_the_head(stack: Stack) -> None:
    for _ in range(3):
        client = await stack.connect(T)
        await client.follow(T, Cursor("e1", 10))


async def test_the_age_of_live_events_is_observed_once_for_all_who_are_written_to() -> None:
    async with running() as stack:
        await _three_at_the_head(stack)
        count, total = ages()
        stack.runtime.append(T)
        client = await stack.connect(T)
        await client.follow(T)
        assert ages()[0] == count, "neither what says nothing of it nor what comes from history has an age"
        stack.runtime.origin = ago(1_000)
        stack.runtime.append(T)
        await client.up_to(T, 12)
        await eventually(lambda: ages()[0] == count + 1)
        assert ages()[1] - total >= 1_000
        stack.runtime.origin = ago(-1_000)
        stack.runtime.append(T)
        await eventually(lambda: ages()[0] == count + 2)
        assert ages()[1] >= total + 1_000, "a clock that is behind makes no event younger than nothing"


async def test_frames_behind_a_hole_are_as_old_as_they_are_once_it_is_closed() -> None:
    upstream = FakeUpstream(Faults())
    async with running(runtime=upstream) as stack:
        await _three_at_the_head(stack)
        count, _ = ages()
        upstream.replay_gate.clear()
        holes = HOLES.labels("run_events")
        before = value_of(holes)
        upstream.faults.lose = 1.0
        upstream.append(T)
        upstream.faults.lose = 0.0
        upstream.origin = ago(5)
        upstream.append(T)
        client = await stack.connect(T)
        await client.subscribe(T, Cursor("e1", 10))
        await client.next(frames.Subscribed)
        assert ages()[0] == count
        upstream.replay_gate.set()
        await client.up_to(T, 12)
        await eventually(lambda: ages()[0] == count + 1)
        assert value_of(holes) > before


async def test_a_traced_commit_ends_with_the_write_to_its_last_subscriber() -> None:
    async with running() as stack:
        await _three_at_the_head(stack)
        stack.runtime.origin = ago(0, TRACED)
        with collected() as spans:
            began_ns = time.time_ns()
            stack.runtime.append(T)
            await eventually(lambda: any(one.name == DELIVER for one in spans.get_finished_spans()))
            stack.runtime.origin = ago(0)
            stack.runtime.append(T)
            client = await stack.connect(T)
            await client.follow(T)
            await client.up_to(T, 12)
            (span,) = (one for one in spans.get_finished_spans() if one.name == DELIVER)
        assert span.parent is not None
        assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
        (first,) = span.events
        assert first.name == FIRST_WRITTEN
        assert span.start_time is not None
        assert span.end_time is not None
        assert began_ns <= span.start_time <= first.timestamp <= span.end_time
        assert dict(span.attributes or {}) == {"oa.frames_written": 3}


async def test_what_is_no_record_has_a_trace_and_no_age() -> None:
    async with running() as stack:
        await _three_at_the_head(stack)
        count, _ = ages()
        stack.runtime.origin = Origin(traceparent=TRACED)
        with collected() as spans:
            stack.runtime.append(T)
            await eventually(lambda: any(one.name == DELIVER for one in spans.get_finished_spans()))
        stack.runtime.origin = ago(1)
        stack.runtime.append(T)
        await eventually(lambda: ages()[0] > count)
        assert ages()[0] == count + 1
