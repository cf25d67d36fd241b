"""A client whose cursor is above the head that this gateway knows."""

from __future__ import annotations

import pytest

from oa_khala import frames
from oa_khala.frames import Cursor
from services.khala_gateway.tests.fake_upstream import FakeUpstream, Faults
from services.khala_gateway.tests.harness import T, running


@pytest.mark.parametrize("has_chain", [True, False])
async def test_a_client_that_has_more_than_the_gateway_goes_on_where_it_is(has_chain: bool) -> None:
    """It comes from another gateway, which was told of events that this one has not been told of yet."""
    async with running(runtime=FakeUpstream(Faults(lose=1.0))) as stack:
        first = await stack.connect(T)
        await first.follow(T)
        stack.runtime.append(T, 2)  # nobody tells the feed
        client = await stack.connect(T)
        await client.subscribe(T, Cursor("e1", 12, stack.runtime.logs[T].chain(12) if has_chain else b""))
        subscribed = await client.next(frames.Subscribed)
        assert (subscribed.plan, subscribed.from_seq, subscribed.head) == (frames.Plan.LIVE, 12, 12)
        assert (await client.next(frames.CaughtUp)).seq == 12
        stack.runtime.append(T)
        await client.up_to(T, 13)
        assert client.seqs[T] == [13]
