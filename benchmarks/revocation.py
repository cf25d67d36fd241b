"""How soon is somebody out whose session or account is revoked? `python -m benchmarks.revocation [--json FILE]`

A whole stack on loopback, as `oa up` starts it. Nothing else goes on.

- **session revoked → socket closed**: from the answer to RevokeSession until a Khala socket of that session has ended,
  for all sockets of all sessions, one session after the other.
- **account revoked → stream ended**: from the answer to RevokeServiceAccount until a worker's stream of that account
  has ended, one account after the other.
- **bare round trip** (floor): one byte there and back over a TCP connection of this process with itself.

What ended before the answer came counts as 0. The goal is 500 ms for the p99 of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import uvloop
import websockets.asyncio.client as ws_client
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.measure import Figures, report
from benchmarks.people import BUILD, PATIENCE_S, Session, Site, site
from benchmarks.sockets import allow_sockets
from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.topics import run_events
from oa_khala.wire import decode_server_frame, encode_client_frame
from oa_localstack.installation.ports import HOST
from oa_testing.peers.listener import Listener
from oa_worker.sdk.transport.connection import Attachment, attach
from openagents.runtime.v1.worker_service_pb2 import WorkerHello

GOAL_MS = 500.0


async def _ended_after_ms(revoke: Awaitable[None], ends: Sequence[Awaitable[float]]) -> list[float]:
    """Milliseconds from the answer of `revoke` until each of `ends`, which return the moment of an end."""
    waiting = [asyncio.ensure_future(end) for end in ends]
    await asyncio.sleep(0)
    await revoke
    answered = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        return [max(0.0, (moment - answered) * 1000) for moment in await asyncio.gather(*waiting)]


def _figures(subject: str, setting: str, latencies_ms: Sequence[float]) -> Figures:
    figures = Figures(subject, setting, len(latencies_ms), sum(latencies_ms) / 1000, latencies_ms)
    note = f"p99 {figures.percentile(0.99) / GOAL_MS:.0%} of the goal of {GOAL_MS:.0f} ms"
    return Figures(subject, setting, figures.events, figures.seconds, latencies_ms, note)


# ------------------------------------------------------------------------------------------------- sockets


async def _socket(session: Session, topic: str) -> ws_client.ClientConnection:
    """A socket of the session that is subscribed to the topic."""
    grant = await session.commands.sync_token([topic], surface="cli")
    options = {"subprotocols": [Subprotocol(Form.PROTO.value)], "compression": None, "proxy": None}
    socket = await ws_client.connect(grant.khala_url, **options)  # type: ignore[arg-type]
    hello = frames.Hello(grant.token, session.auth.device_id, BUILD)
    for frame in (hello, frames.Subscribe(((topic, None),))):
        await socket.send(encode_client_frame(frame, Form.PROTO))
    async with asyncio.timeout(PATIENCE_S):
        while not isinstance(decode_server_frame(await _message(socket), Form.PROTO), frames.CaughtUp):
            pass
    return socket


async def _message(socket: ws_client.ClientConnection) -> bytes:
    message = await socket.recv()
    assert isinstance(message, bytes)
    return message


async def _closed(socket: ws_client.ClientConnection) -> float:
    """The moment at which the socket ended. Fails unless the revocation ended it."""
    reason = ""
    with contextlib.suppress(ConnectionClosed):
        while True:
            frame = decode_server_frame(await _message(socket), Form.PROTO)
            reason = frame.reason if isinstance(frame, frames.ErrorFrame) else reason
    moment = time.perf_counter()
    assert reason == "token_revoked", reason
    return moment


async def sockets(site: Site, sessions: int, each: int) -> Figures:
    """Revoke session after session, with all sockets of all of them open."""
    people = [await site.session(number) for number in range(sessions)]
    open_now = []
    for person in people:
        topic = run_events((await person.commands.start_exec(["true"])).run_id)
        open_now.append([await _socket(person, topic) for _ in range(each)])
    latencies_ms: list[float] = []
    for person, of_person in zip(people, open_now, strict=True):
        latencies_ms += await _ended_after_ms(person.commands.revoke_session(), [_closed(one) for one in of_person])
    setting = f"{sessions * each} sockets of {sessions} sessions"
    return _figures("session revoked → socket closed", setting, latencies_ms)


# ------------------------------------------------------------------------------------------------- workers' streams


async def _until_ended(stream: Attachment) -> float:
    """The moment at which the stream ended. Fails unless the revocation ended it."""
    reason = ""
    try:
        async for _ in stream.messages():
            pass
    except Refusal as refusal:
        reason = refusal.reason
    moment = time.perf_counter()
    assert reason == "token_revoked", reason
    return moment


async def streams(site: Site, accounts: int, each: int) -> Figures:
    """Revoke account after account, with all streams of all of them open."""
    person = await site.session(10_000)
    made = [await person.commands.create_service_account(f"worker {number}") for number in range(accounts)]
    latencies_ms: list[float] = []
    async with AsyncExitStack() as channels:
        open_now = []
        for account in made:
            token = await site.tokens(account.api_key).get()
            of_account = []
            for _ in range(each):
                channel = await channels.enter_async_context(grpc.aio.insecure_channel(token.runtime_address))
                hello = WorkerHello(name="bench", adapters=["exec"], max_concurrent_runs=1)
                of_account.append(await attach(channel, token.token, hello, timeout_s=PATIENCE_S))
            open_now.append(of_account)
        for account, of_account in zip(made, open_now, strict=True):
            revoke = person.commands.revoke_service_account(account.service_account_id)
            latencies_ms += await _ended_after_ms(revoke, [_until_ended(one) for one in of_account])
    setting = f"{accounts * each} streams of {accounts} accounts"
    return _figures("account revoked → stream ended", setting, latencies_ms)


# ------------------------------------------------------------------------------------------------- the floor


async def round_trips(count: int) -> Figures:
    """Measure the floor."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while byte := await reader.read(1):
            writer.write(byte)

    async with Listener(echo) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        latencies_ms = []
        for _ in range(count):
            began = time.perf_counter()
            writer.write(b"x")
            await reader.readexactly(1)
            latencies_ms.append((time.perf_counter() - began) * 1000)
        writer.close()
        await writer.wait_closed()
    return Figures("bare round trip", "one byte", count, sum(latencies_ms) / 1000, latencies_ms)


async def measured(sessions: int, sockets_each: int, accounts: int, streams_each: int) -> list[Figures]:
    """Every row."""
    async with site() as here:
        return [
            await sockets(here, sessions, sockets_each),
            await streams(here, accounts, streams_each),
            await round_trips(sessions * sockets_each),
        ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--sockets", type=int, default=5, help="of each session")
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--streams", type=int, default=5, help="of each account")
    arguments = parser.parse_args()
    allow_sockets(arguments.sessions * arguments.sockets + arguments.accounts * arguments.streams)
    counts = arguments.sessions, arguments.sockets, arguments.accounts, arguments.streams
    rows = uvloop.run(measured(*counts))
    report("revocation: how soon is somebody out?", rows, arguments.json)


if __name__ == "__main__":
    main()
