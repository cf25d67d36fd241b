"""What control revokes ends sockets, wherever they stand, and opens none."""

from __future__ import annotations

import asyncio
import time

import pytest

from oa_khala import frames
from oa_khala.frames import Cursor, Form
from oa_platform.auth.revocations import Revocation
from oa_testing.waiting import PATIENCE_S, eventually
from services.khala_gateway.sockets.ws_door.socket import Socket
from services.khala_gateway.tests.harness import (
    USER,
    Client,
    Limits,
    Stack,
    T,
    U,
    buffered_bytes,
    claims_of_runs,
    running,
)

EPOCH = "e1"
REVOKED = ("token_revoked", 4401)
SLOW = Limits().with_socket(write_high_bytes=64 * 1024, write_low_bytes=1024, close_timeout_ms=60_000)


def revoke(stack: Stack, *revocations: Revocation) -> None:
    stack.revocations.take(revocations, stack.revocations.position + len(revocations))


@pytest.mark.parametrize(
    "revocation",
    [Revocation(session_id="ses_1"), Revocation(subject=USER), Revocation(subject=USER, issued_before_s=2.0**40)],
    ids=str,
)
async def test_sockets_of_what_was_revoked_are_closed_with_the_reason_and_others_are_not(
    revocation: Revocation,
) -> None:
    async with running() as stack:
        mine, mine_too = await stack.connect(T), await stack.connect(T)
        other = await stack.connect(T, session_id="ses_2", sub="usr_01J9ZQ6T5W3M8K2N4P7R1S0V6Z")
        await mine.follow(T)
        revoke(stack, revocation)
        assert await mine.close_code() == REVOKED
        assert await mine_too.close_code() == REVOKED
        await other.send(frames.Ping(7))
        assert (await other.next(frames.Heartbeat)).nonce == 7
        await eventually(lambda: len(stack.server.sockets) == 1)


async def test_a_token_from_before_opens_nothing_any_more() -> None:
    async with running() as stack:
        token = stack.token(T)
        revoke(stack, Revocation(session_id="ses_1"))
        client = await Client.open(stack.url)
        await client.hello(token)
        assert await client.close_code() == REVOKED


async def test_a_connection_does_not_go_on_with_a_token_that_was_revoked() -> None:
    async with running() as stack:
        now = int(time.time())
        client = await stack.connect(T)
        revoke(stack, Revocation(subject=USER, issued_before_s=now - 50.0))
        await client.follow(T)
        await client.send(frames.RefreshToken(stack.token(T, iat=now - 100)))
        assert await client.close_code() == REVOKED


async def test_a_replay_ends_in_the_middle() -> None:
    async with running() as stack:
        stack.runtime.page_frames = 4
        client = await stack.connect(T)
        stack.runtime.replay_gate.clear()
        await client.subscribe(T, Cursor(EPOCH, 0))
        await eventually(lambda: bool(stack.runtime.replays))
        revoke(stack, Revocation(session_id="ses_1"))
        stack.runtime.replay_gate.set()
        assert await client.close_code() == REVOKED
        assert T not in client.seqs


async def test_a_token_of_all_runs_of_a_person_ends_with_its_session_too() -> None:
    async with running() as stack:
        claims = claims_of_runs(USER)
        stack.runtime.logs[T].owner_org_id = claims["org_id"]
        client = await stack.connect(**claims)
        await client.follow(T)
        token = stack.token(**claims)
        revoke(stack, Revocation(session_id="ses_1"))
        stack.runtime.append(T)
        assert await client.close_code() == REVOKED
        late = await Client.open(stack.url)
        await late.hello(token)
        assert await late.close_code() == REVOKED


async def test_a_snapshot_that_was_being_read_is_not_handed_over() -> None:
    async with running() as stack:
        stack.projector.logs[U].has_snapshot = True
        client = await stack.connect(U)
        stack.projector.replay_gate.clear()
        await client.subscribe(U)
        await eventually(lambda: stack.projector.snapshots == 1)
        revoke(stack, Revocation(session_id="ses_1"))
        stack.projector.replay_gate.set()
        assert (await client.next(frames.ErrorFrame)).reason == "token_revoked", "and nothing before it"
        assert (await client.close_code())[1] == 4401


async def test_a_session_that_has_ended_is_watched_no_longer() -> None:
    async with running() as stack:
        clients = [await stack.connect(T) for _ in range(3)]
        assert stack.revocations._watched
        for client in clients:
            await client.socket.close()
        async with asyncio.timeout(PATIENCE_S):
            while stack.revocations._watched:
                await asyncio.sleep(0.01)


async def test_a_client_of_json_is_told_too() -> None:
    async with running() as stack:
        client = await stack.connect(T, form=Form.JSON)
        await client.follow(T)
        revoke(stack, Revocation(session_id="ses_1"))
        assert await client.close_code() == REVOKED


async def test_a_refreshed_connection_goes_by_its_newest_token() -> None:
    now = int(time.time())
    async with running() as stack:
        client = await stack.connect(T, iat=now - 100)
        await client.send(frames.RefreshToken(stack.token(T)))
        await client.follow(T)
        revoke(stack, Revocation(session_id="ses_1", issued_before_s=now - 50.0))
        stack.runtime.append(T)
        await client.until_up_to(T, 11)


async def _full(stack: Stack, client: Client) -> Socket:
    """The client takes nothing, and its socket holds as much as it may."""
    client.socket.transport.pause_reading()
    held = next(iter(stack.server.sockets))
    async with asyncio.timeout(PATIENCE_S):
        while buffered_bytes(held) < SLOW.port.socket.write_high_bytes:
            stack.runtime.append(T, 10, size=10_000)
            await asyncio.sleep(0.01)
    return held


async def test_a_slow_client_is_told_once_it_reads_and_gets_no_event_more() -> None:
    async with running(SLOW) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        held = await _full(stack, client)
        full = buffered_bytes(held)
        revoke(stack, Revocation(session_id="ses_1"))
        stack.runtime.append(T, 100, size=10_000)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert buffered_bytes(held) < full + 1_000, "the ERROR and the close are added, and nothing else"
        client.socket.transport.resume_reading()
        assert await client.close_code() == REVOKED
        assert client.seqs[T][-1] < stack.runtime.logs[T].head


async def test_a_slow_client_that_never_reads_is_gone_after_the_close_timeout() -> None:
    async with running(SLOW.with_socket(close_timeout_ms=100, linger_ms=3_600_000)) as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await _full(stack, client)
        revoke(stack, Revocation(session_id="ses_1"))
        await eventually(lambda: not stack.server.sockets)
        client.socket.transport.resume_reading()
        assert (await client.close_code())[1] in (1006, 4401)
