"""A server with one method of each kind, and one of each kind of identity, for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from oa_base.identity import ISSUER
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.identity import current_caller
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.config.parsers import Address, Secret
from oa_platform.config.shared import GrpcClientSettings, GrpcServerSettings, token_hash
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.clock import SystemClock
from oa_platform.system.ids import new_id
from oa_testing.waiting import PATIENCE_S
from oa_wire.status import LOST_STATUS
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from openagents.sync.v1 import topic_service_pb2

LOOPBACK = "127.0.0.1"
_PATIENCE_MS = int(PATIENCE_S * 1000)
SERVER = GrpcServerSettings(address=Address(LOOPBACK, 0), stream_drain_s=0.2, call_drain_s=0.5)
CLIENT = GrpcClientSettings(keepalive_timeout_ms=_PATIENCE_MS, connect_timeout_ms=_PATIENCE_MS)
"""Loses no connection because the machine is slow."""
TOKENS = {"control": "control's token", "khala_gateway": "the gateway's token", "projector": "the projector's token"}

Request = topic_service_pb2.DescribeTopicRequest
Response = topic_service_pb2.DescribeTopicResponse
Behave = Callable[[Request], Awaitable[None]]


async def nothing(_: Request) -> None:
    """Answer at once."""


@dataclass
class Echo:
    """Answers with the topic it was asked for, after `behave` had its way."""

    behave: Behave = nothing
    seen: int = 0
    answers: int = 3
    padding: str = ""
    left: int = 0
    """How often `down` came to its end, whichever."""

    async def one(self, request: Request, _: Any) -> Response:
        """Unary, unary."""
        self.seen += 1
        await self.behave(request)
        return Response(epoch=request.topic, owner_user_id=str(current_caller()))

    async def down(self, request: Request, _: Any) -> AsyncIterator[Response]:
        """Unary, stream."""
        try:
            for number in range(self.answers):
                yield Response(epoch=request.topic, head=number, owner_user_id=self.padding)
            await self.behave(request)
        finally:
            self.left += 1

    async def up(self, requests: AsyncIterator[Request], _: Any) -> Response:
        """Stream, unary."""
        topics = []
        async for request in requests:
            await self.behave(request)
            topics.append(request.topic)
        return Response(epoch=",".join(topics))

    async def both(self, requests: AsyncIterator[Request], _: Any) -> AsyncIterator[Response]:
        """Stream, stream."""
        async for request in requests:
            await self.behave(request)
            yield Response(epoch=request.topic)


ECHO = "test.Echo"
_MAKERS = {
    "one": grpc.unary_unary_rpc_method_handler,
    "down": grpc.unary_stream_rpc_method_handler,
    "up": grpc.stream_unary_rpc_method_handler,
    "both": grpc.stream_stream_rpc_method_handler,
}


def add_echo(echo: Echo, server: grpc.aio.Server) -> None:
    """As generated code would."""
    handlers: dict[str, Any] = {
        name: make(getattr(echo, name), Request.FromString, Response.SerializeToString)
        for name, make in _MAKERS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, handlers),))


class EchoStub:
    """As generated code would."""

    def __init__(self, channel: grpc.aio.Channel, serialize: Any = Request.SerializeToString) -> None:
        parts: Any = (serialize, Response.FromString)
        self.one: Any = channel.unary_unary(f"/{ECHO}/one", *parts)
        self.down: Any = channel.unary_stream(f"/{ECHO}/down", *parts)
        self.up: Any = channel.stream_unary(f"/{ECHO}/up", *parts)
        self.both: Any = channel.stream_stream(f"/{ECHO}/both", *parts)
        self.nowhere: Any = channel.unary_unary(f"/{ECHO}/nowhere", *parts)


class World:
    """A server named "runtime", and ways to call it."""

    def __init__(self, settings: GrpcServerSettings = SERVER) -> None:
        self.key: SigningKey = generate_key()
        self.echo = Echo()
        verifier = TokenVerifier(StaticKeys([self.key.public_key]), SystemClock())
        accepted = {token_hash(token): name for name, token in TOKENS.items()}
        self.server = GrpcServer(settings, Authenticator("runtime", accepted, verifier))
        self.server.register(add_echo, self.echo)

    def channel(self, caller: str = "khala_gateway", port: int | None = None, **settings: Any) -> grpc.aio.Channel:
        """A channel with a service's token; with an unknown name it has a wrong one. `port`: of who stands between."""
        token = Secret(TOKENS.get(caller, "a wrong token"))
        return open_channel(Address(LOOPBACK, port or self.server.port), replace(CLIENT, **settings), token)

    def bare_channel(self) -> grpc.aio.Channel:
        """A channel of somebody who has nothing."""
        return grpc.aio.insecure_channel(f"{LOOPBACK}:{self.server.port}")

    def principal_token(self, **changes: Any) -> str:
        """What control would send along for a person."""
        return self._sign(claims_pb2.PrincipalClaims, principal_pb2.PRINCIPAL_KIND_USER, ["runs.read"], changes)

    def worker_token(self, **changes: Any) -> str:
        """What a worker has."""
        return self._sign(
            claims_pb2.WorkerTokenClaims, principal_pb2.PRINCIPAL_KIND_WORKER, ["workers.attach"], changes
        )

    def _sign(self, claims_type: Any, kind: Any, scopes: list[str], changes: dict[str, Any]) -> str:
        now = SystemClock().now_ms() // 1000
        values = {
            "iss": ISSUER, "sub": "usr_1", "aud": "runtime", "iat": now, "nbf": now, "exp": now + 60,
            "jti": new_id("jti"), "kind": kind, "org_id": "org_1", "scopes": scopes,
        }  # fmt: skip
        return sign_token(claims_type(**{**values, **changes}), self.key)


@asynccontextmanager
async def running(settings: GrpcServerSettings = SERVER) -> AsyncIterator[tuple[World, EchoStub]]:
    """A world whose server runs, and a stub that may call it."""
    world = World(settings)
    async with world.server, world.channel() as channel:
        yield world, EchoStub(channel)


async def refused(call: Any) -> Refusal:
    """The refusal that a call ends with; for streams, what comes before it is read."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _to_its_end(call)
    refusal = refusal_from_rpc_error(caught.value)
    assert caught.value.code().name == refusal.info.grpc_code or caught.value.details() == LOST_STATUS
    return refusal


async def _to_its_end(call: Any) -> None:
    if not hasattr(call, "__aiter__"):
        await call
        return
    async for _ in call:
        pass


async def never(_: Message) -> None:
    """A handler that doesn't end by itself."""
    await asyncio.Event().wait()
