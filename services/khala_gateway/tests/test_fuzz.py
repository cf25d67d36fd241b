"""Bytes that no client sends: the gateway answers or hangs up, raises nothing, and others notice nothing."""

import asyncio
import contextlib
import random
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.wire import encode_client_frame
from oa_testing.waiting import PATIENCE_S, eventually
from services.khala_gateway.tests.harness import Client, Limits, Stack, T, running

UPGRADE = (
    b"GET /khala/v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: khala.v1.proto\r\n\r\n"
)
LIMITS = Limits().with_session(hello_deadline_ms=100).with_socket(handshake_deadline_ms=100, close_timeout_ms=50)
ROUNDS = 40


def ws_frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """One WebSocket frame, right or wrong."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    length = len(payload)
    mask_bit = 0x80 if masked else 0
    if length <= 125:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length <= 0xFFFF:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with some bytes changed, cut, or said twice."""
    changed = bytearray(data)
    for _ in range(rng.randrange(4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    if rng.random() < 0.3:
        changed = changed[: rng.randrange(len(changed) + 1)]
    return bytes(changed * (2 if rng.random() < 0.1 else 1))


def script(rng: random.Random, token: str) -> list[bytes]:
    """What one strange client sends, piece by piece."""
    hello = ws_frame(2, encode_client_frame(frames.Hello(token, "dev_1", "t/1"), Form.PROTO))
    subscribe = ws_frame(2, encode_client_frame(frames.Subscribe(((T, None),)), Form.PROTO))
    pieces = [UPGRADE if rng.random() < 0.8 else mutated(UPGRADE, rng)]
    if rng.random() < 0.7:
        pieces.append(hello)
    choices = [
        hello,
        subscribe,
        mutated(subscribe, rng),
        rng.randbytes(rng.randrange(300)),
        ws_frame(rng.randrange(16), rng.randbytes(rng.randrange(140)), fin=rng.random() < 0.8),
        ws_frame(2, b"x", masked=False),
        ws_frame(2, b"x", reserved=rng.randrange(1, 8)),
        ws_frame(9, b"x" * rng.choice([0, 125, 126])),
        ws_frame(8, rng.choice([b"", b"\x03", b"\x03\xe8bye", b"\x00\x01"])),
        ws_frame(0, b"more"),
        ws_frame(2, bytes(rng.choice([65_536, 65_537]))),
        b"\x82\xff" + b"\xff" * 8,
    ]
    pieces += rng.choices(choices, k=rng.randrange(6))
    return [b"".join(pieces)] if rng.random() < 0.4 else pieces


async def play(stack: Stack, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.server.port)
    try:
        for piece in script(rng, stack.token(T)):
            writer.write(piece)
            await writer.drain()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        if rng.random() < 0.3:
            writer.write_eof()
        if rng.random() < 0.7:
            async with asyncio.timeout(0.2):
                while await reader.read(65_536):
                    pass
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


async def _welcomed(stack: Stack) -> Client:
    """Somebody who got in: on a slow machine the limits are short for them too."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(AssertionError, ConnectionClosed, InvalidHandshake, OSError):
                return await stack.connect(T)


async def survive(seed: int) -> None:
    rng = random.Random(seed)
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    async with running(LIMITS) as stack:
        witness = await _welcomed(stack)
        await witness.follow(T)
        for _ in range(ROUNDS):
            await play(stack, rng)
            assert raised == []
        stack.runtime.append(T, 3)
        await witness.up_to(T, 13)
        assert witness.seqs[T] == list(range(1, 14))
        await eventually(lambda: len(stack.server.sockets) == 1)
    assert raised == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_nonsense_is_survived_on_every_loop(run: Callable[[Coroutine[Any, Any, None]], None], seed: int) -> None:
    run(survive(seed))
