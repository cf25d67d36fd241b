"""A control for tests that knows one answer: the token of a worker."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_localstack.installation.ports import HOST
from oa_testing.peers.listener import Listener
from oa_wire.connect import PROTO
from oa_worker.tests.fake_runtime import FakeRuntime
from openagents.control.v1 import service_account_service_pb2 as pb

TIMEOUT_S = 120.0


@asynccontextmanager
async def control(runtime: FakeRuntime, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its URL; it knows one answer: a worker token."""
    token = pb.ExchangeKeyResponse(token="token", runtime_grpc_address=runtime.address)
    token.expire_time.FromSeconds(int(time.time()) + 3600)
    body = token.SerializeToString()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {PROTO}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async with Listener(answer, tls=tls) as server:
        yield f"{'https' if tls else 'http'}://{HOST}:{server.port}"
