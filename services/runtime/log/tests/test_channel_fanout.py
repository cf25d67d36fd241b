"""What the fan-out over a channel says and hears; `test_fanouts` has what holds of every fan-out."""

from __future__ import annotations

import asyncio

from oa_platform.telemetry.tracing import sampled_traceparent
from oa_platform.tests.traces import collected, span
from oa_testing.peers.memory_channel import MemoryHub
from oa_testing.waiting import eventually
from services.runtime.log.app.channel_fanout import ChannelFanout
from services.runtime.log.app.fanout import publisher
from services.runtime.log.domain.positions import MAX_POSITIONS, positions_of, positions_text, texts_of
from services.runtime.log.tests.followed import FakeLog, following

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


async def test_what_goes_out_together_is_told_with_the_trace_of_its_first_traced_commit() -> None:
    log, hub = FakeLog(2), MemoryHub()
    texts: list[str] = []
    listener = asyncio.create_task(hub.channel(texts.append).run())
    async with following(log) as (tail, _):
        fanout = ChannelFanout(hub.channel, tail.hint)
        telling = asyncio.create_task(fanout.run())
        publish = publisher(tail.publish, fanout)
        publish(log.commit(1))
        with collected(), span("commit"):
            publish(log.commit(1, 1))
            traceparent = sampled_traceparent()
        await eventually(lambda: bool(texts))
        publish(log.commit(1))
        await eventually(lambda: len(texts) > 1)
    for task in (listener, telling):
        task.cancel()
    await asyncio.gather(listener, telling, return_exceptions=True)
    assert texts == [f"{traceparent} 0:1 1:1", "0:2"]


async def test_a_text_that_is_none_of_ours_is_passed_over() -> None:
    hub, hints = MemoryHub(), list[tuple[int, int, str]]()
    stranger = hub.channel(lambda _: None)
    fanout = ChannelFanout(hub.channel, lambda *place: hints.append(place))
    task = asyncio.create_task(fanout.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    numbers = (f"1:{10**400}", "1:-2", "1:+2", "1: 2", "1:1_0", "1:²", "1:٢", f"{10**20}:1")
    for text in ("", "x", "1:2:3", "one:2", *numbers, "4:5", f"{TRACEPARENT} 6:7", TRACEPARENT):
        await stranger.say(text)
    assert hints == [(4, 5, ""), (6, 7, TRACEPARENT)]
    hints.clear()
    await stranger.say("8:9 later;word 10:11 more=1")
    assert hints == [(8, 9, ""), (10, 11, "")], "a later release may say more"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_many_partitions_take_several_texts_that_fit_into_any_message() -> None:
    positions = dict.fromkeys(range(10_000, 10_000 + 2 * MAX_POSITIONS + 1), 2**63 - 1)
    texts = list(texts_of(positions))
    assert len(texts) == 3
    assert all(len(text) < 8000 for text in texts)
    assert dict(position for text in texts for position in positions_of(text)) == positions
    assert list(texts_of({})) == []
    assert positions_text([(1, 2)]) == "1:2"
