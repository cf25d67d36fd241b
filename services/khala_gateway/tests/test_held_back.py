"""What a client sends while its token is verified: it waits, however much it is, and the rest is not read."""

from __future__ import annotations

import asyncio

import pytest

from oa_khala import frames
from oa_khala.server.admission import Grant
from oa_testing.waiting import eventually
from services.khala_gateway.admission.door import SyncTokenVerifier
from services.khala_gateway.tests.harness import Client, Limits, Stack, T, running

PINGS = 60
FEW = Limits().with_session(max_pipelined_frames=4)


class SlowKeys:
    """Tokens are verified once `known` is set, as when the key of a token has to be fetched from control."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = asyncio.Event()
        self.asked = 0
        verify = SyncTokenVerifier.verify

        async def wait(verifier: SyncTokenVerifier, token: str) -> Grant:
            self.asked += 1
            await self.known.wait()
            return await verify(verifier, token)

        monkeypatch.setattr(SyncTokenVerifier, "verify", wait)


async def _answers(client: Client) -> list[int]:
    found: list[int] = []
    while len(found) < PINGS:
        frame = await client.receive()
        if isinstance(frame, frames.Heartbeat) and frame.nonce:
            found.append(frame.nonce)
    return found


async def _many(client: Client, apart: bool) -> None:
    for nonce in range(1, PINGS + 1):
        await client.send(frames.Ping(nonce))
        if apart:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("apart", [False, True])
async def test_who_shows_a_new_token_may_say_as_much_as_ever(monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    async with running(FEW) as stack:
        client = await stack.connect(T)
        keys = SlowKeys(monkeypatch)
        await client.send(frames.RefreshToken(stack.token(T)))
        await _many(client, apart)
        await eventually(lambda: keys.asked == 1)
        keys.known.set()
        assert await _answers(client) == list(range(1, PINGS + 1))
        await client.follow(T)


async def test_who_says_hello_is_held_back_until_the_token_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(FEW) as stack:
        keys = SlowKeys(monkeypatch)
        client = await Client.open(stack.url)
        await client.hello(stack.token(T))
        await _many(client, apart=False)
        await eventually(lambda: keys.asked == 1)
        keys.known.set()
        assert isinstance(await client.receive(), frames.Welcome)
        assert await _answers(client) == list(range(1, PINGS + 1))


async def _refused(stack: Stack, keys: SlowKeys, token: str) -> tuple[str, int]:
    client = await Client.open(stack.url)
    await client.hello(token)
    await _many(client, apart=False)
    await eventually(lambda: keys.asked == 1)
    keys.known.set()
    return await client.close_code()


async def test_who_is_refused_closes_in_order_whatever_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(FEW) as stack:
        assert await _refused(stack, SlowKeys(monkeypatch), "no token") == ("invalid_token", 4401)
        await eventually(lambda: not stack.server.sockets)


async def test_what_is_no_frame_ends_the_connection_when_its_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(FEW) as stack:
        client = await stack.connect(T)
        keys = SlowKeys(monkeypatch)
        await client.send(frames.RefreshToken(stack.token(T)))
        await _many(client, apart=False)
        await client.socket.send(b"\xff")
        keys.known.set()
        assert await _answers(client) == list(range(1, PINGS + 1))
        assert await client.close_code() == ("malformed_message", 4400)
