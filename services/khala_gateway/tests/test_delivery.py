"""Subscribing, joining and resuming over real sockets."""

import pytest

from oa_khala import frames
from oa_khala.frames import Cursor, Form, Plan
from services.khala_gateway.tests.harness import T, U, running


@pytest.mark.parametrize("form", Form)
async def test_history_then_caught_up_then_live(form: Form) -> None:
    async with running() as stack:
        client = await stack.connect(T, form=form)
        await client.subscribe(T)
        assert await client.next(frames.Subscribed) == frames.Subscribed(T, "e1", 0, 10, Plan.REPLAY, 0)
        assert (await client.next(frames.CaughtUp)).seq == 10
        stack.runtime.append(T, 3)
        await client.up_to(T, 13)
        assert client.seqs[T] == list(range(1, 14))
        assert client.payloads == [b"e1:%d" % seq for seq in range(1, 14)]


async def test_both_sources_on_one_connection() -> None:
    async with running() as stack:
        client = await stack.connect(T, U)
        await client.subscribe(U, Cursor("e1", 2))
        await client.next(frames.Subscribed)
        await client.next(frames.CaughtUp)
        await client.subscribe(T, Cursor("e1", 10))
        assert (await client.next(frames.Subscribed)).plan is Plan.LIVE
        await client.next(frames.CaughtUp)
        stack.projector.append(U)
        stack.runtime.append(T)
        await client.up_to(U, 4)
        await client.up_to(T, 11)
        assert client.seqs == {U: [3, 4], T: [11]}
