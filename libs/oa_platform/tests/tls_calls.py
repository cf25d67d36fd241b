"""A server and a caller with certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from oa_platform.auth.authenticator import Authenticator
from oa_platform.config.parsers import Address, Secret
from oa_platform.config.shared import token_hash
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.tests.grpc_sample import CLIENT, LOOPBACK, SERVER, TOKENS, Echo, EchoStub, Request, add_echo
from oa_platform.tls.protection import Protection
from oa_testing.waiting import PATIENCE_S

ACCEPTED = {token_hash(token): name for name, token in TOKENS.items()}


@asynccontextmanager
async def serving(protection: Protection) -> AsyncIterator[tuple[Echo, int]]:
    """A gRPC server on loopback, and its port."""
    echo = Echo()
    server = GrpcServer(SERVER, Authenticator("runtime", ACCEPTED, None), protection)
    server.register(add_echo, echo)
    async with server:
        yield echo, server.port


def calling(port: int, protection: Protection, host: str = LOOPBACK) -> grpc.aio.Channel:
    """A channel of the gateway."""
    return open_channel(Address(host, port), CLIENT, Secret(TOKENS["khala_gateway"]), protection)


async def ask(channel: grpc.aio.Channel) -> str:
    """One call, which must succeed."""
    answer = await EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S, wait_for_ready=True)
    return str(answer.epoch)
