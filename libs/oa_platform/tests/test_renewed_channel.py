"""Replicas that go while others come, and connections that are lost under a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from oa_platform.config.parsers import Address, Secret, Target
from oa_platform.config.shared import GrpcClientSettings
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.renewed import RenewedChannel
from oa_platform.rpc.repeats import REPEATS, safe_to_repeat
from oa_platform.tests.grpc_sample import (
    CLIENT,
    LOOPBACK,
    SERVER,
    TOKENS,
    EchoStub,
    Request,
    Response,
    World,
    refused,
)
from oa_platform.tests.names import Names
from oa_platform.tls.protection import Protection
from oa_testing.postgres import free_port
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.projection.v1 import read_service_pb2
from openagents.runtime.v1 import run_service_pb2, worker_service_pb2

HEADLESS = "runtime-headless.oa.test"
READ = f"/{read_service_pb2.DESCRIPTOR.services_by_name['ReadService'].full_name}/ListRunSummaries"
CREATE = f"/{run_service_pb2.DESCRIPTOR.services_by_name['RunService'].full_name}/CreateRun"
APPEND = f"/{worker_service_pb2.DESCRIPTOR.services_by_name['WorkerService'].full_name}/AppendEvents"
LOST_CALLS = 40
QUICK = replace(CLIENT, resolve_min_ms=100, reconnect_min_ms=50, reconnect_max_ms=200)


class Roll:
    """Servers at addresses 127.0.0.x of one port, and a DNS that names some of them."""

    def __init__(self, names: Names, stack: AsyncExitStack) -> None:
        self.port = free_port()
        self.names = names
        self._stack = stack

    async def started(self, host: str) -> World:
        """A server that serves."""
        world = World(replace(SERVER, address=Address(host, self.port)))
        await self._stack.enter_async_context(world.server)
        return world

    def channel(self, settings: GrpcClientSettings = QUICK) -> RenewedChannel:
        """To all that DNS names."""
        target = Target((Address(HEADLESS, self.port),), f"127.0.0.1:{self.names.port}")
        channel = open_channel(target, settings, Secret(TOKENS["khala_gateway"]), Protection(allow_plaintext=True))
        assert isinstance(channel, RenewedChannel)
        return channel


@asynccontextmanager
async def _rolling(*hosts: str) -> AsyncIterator[Roll]:
    async with AsyncExitStack() as stack, Names(*hosts) as names:
        yield Roll(names, stack)


async def _one(stub: EchoStub) -> None:
    await stub.one(Request(topic="a"), timeout=PATIENCE_S)


async def _gone(channel: RenewedChannel) -> None:
    """Until the channel has heard that all whom it knew want no calls."""
    async with asyncio.timeout(PATIENCE_S):
        while (state := channel._channel.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            await channel._channel.wait_for_state_change(state)
    await asyncio.sleep(QUICK.resolve_min_ms / 1000)


async def _endless() -> AsyncIterator[Request]:
    while True:
        yield Request(topic="a")
        await asyncio.sleep(0.01)


async def test_replicas_that_came_are_found_while_those_that_go_keep_their_connections() -> None:
    async with _rolling("127.0.0.2", "127.0.0.3") as roll:
        old = [await roll.started(host) for host in ("127.0.0.2", "127.0.0.3")]
        async with roll.channel() as channel:
            stub = EchoStub(channel)
            await _one(stub)
            stream = aiter(stub.both(_endless()))
            await anext(stream)
            new = await roll.started("127.0.0.4")
            roll.names.addresses = ("127.0.0.4",)
            for world in old:
                await world.server.withdraw()
            await _gone(channel)
            await _one(stub)
            assert new.echo.seen == 1
            await anext(stream)
            assert channel.former_channels == 1  # it has the stream, which goes on where it is


async def test_who_waits_for_a_channel_is_told_of_the_replicas_that_came() -> None:
    async with _rolling("127.0.0.2") as roll:
        old = await roll.started("127.0.0.2")
        async with roll.channel() as channel:
            await channel.channel_ready()
            await old.server.withdraw()
            await _gone(channel)
            waiting = asyncio.create_task(channel.channel_ready())
            await asyncio.sleep(QUICK.resolve_min_ms / 1000)
            assert not waiting.done()
            await roll.started("127.0.0.3")
            roll.names.addresses = ("127.0.0.3",)
            await asyncio.wait_for(waiting, PATIENCE_S)


async def test_dns_is_asked_anew_no_more_often_than_allowed() -> None:
    async with _rolling("127.0.0.2") as roll:
        old = await roll.started("127.0.0.2")
        async with roll.channel(replace(QUICK, resolve_min_ms=600_000)) as channel:
            await _one(EchoStub(channel))
            first = channel.current()
            await old.server.withdraw()
            await _gone(channel)
            for _ in range(10):
                assert (await refused(EchoStub(channel).one(Request(topic="a")))).reason == "unavailable"
            assert channel.current() is first


async def test_channels_that_found_nobody_are_closed() -> None:
    async with _rolling("127.0.0.2") as roll:
        old = await roll.started("127.0.0.2")
        async with roll.channel() as channel:
            stub = EchoStub(channel)
            await _one(stub)
            await old.server.withdraw()
            for _ in range(3):
                await _gone(channel)
                assert (await refused(stub.one(Request(topic="a")))).reason == "unavailable"
            await eventually(lambda: channel.former_channels == 0)


class Losing:
    """A server that loses the connection under the calls whose numbers are in `losses`: the first is 1."""

    def __init__(self, losses: Container[int]) -> None:
        self.losses = losses
        self.seen = 0
        self.proxy: Any = None

    async def answer(self, request: Request, _: Any) -> Response:
        """Every method."""
        self.seen += 1
        if self.seen in self.losses:
            await self.proxy.cut()
            await asyncio.Event().wait()
        return Response(epoch=request.topic)


@asynccontextmanager
async def _losing(
    losses: Container[int], fault_proxies: FaultProxies
) -> AsyncIterator[tuple[Losing, grpc.aio.Channel]]:
    losing, server = Losing(losses), grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(losing.answer, Request.FromString, Response.SerializeToString)
    for method in (READ, APPEND):
        _, service, name = method.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    losing.proxy = await fault_proxies(LOOPBACK, port)
    try:
        async with open_channel(Address(LOOPBACK, losing.proxy.port), QUICK, Secret("a token")) as channel:
            yield losing, channel
    finally:
        await server.stop(None)


def _call(channel: grpc.aio.Channel, method: str) -> Any:
    stub: Any = channel.unary_unary(method, Request.SerializeToString, Response.FromString)
    return stub(Request(topic="a"), timeout=PATIENCE_S, wait_for_ready=True)


async def test_a_call_that_is_safe_to_repeat_outlives_its_connection(fault_proxies: FaultProxies) -> None:
    async with _losing(range(1, REPEATS + 1), fault_proxies) as (losing, channel):
        assert (await _call(channel, READ)).epoch == "a"
    assert losing.seen == REPEATS + 1


async def test_what_is_repeated_is_not_lost_with_the_same_connection(fault_proxies: FaultProxies) -> None:
    """Made again at once, one in fourteen was."""
    async with _losing(range(1, 2 * LOST_CALLS, 2), fault_proxies) as (losing, channel):
        for _ in range(LOST_CALLS):
            assert (await _call(channel, READ)).epoch == "a"
    assert losing.seen == 2 * LOST_CALLS


async def test_it_is_repeated_once_and_not_for_ever(fault_proxies: FaultProxies) -> None:
    async with _losing(range(1, REPEATS + 2), fault_proxies) as (losing, channel):
        assert (await refused(_call(channel, READ))).reason == "unavailable"
    assert losing.seen == REPEATS + 1


async def test_a_call_that_the_contract_does_not_call_safe_is_not_repeated(fault_proxies: FaultProxies) -> None:
    async with _losing({1}, fault_proxies) as (losing, channel):
        assert (await refused(_call(channel, APPEND))).reason == "unavailable"
    assert losing.seen == 1


@pytest.mark.parametrize(
    ("method", "safe"),
    [(READ, True), (CREATE, True), (APPEND, False), ("/a.B/C", False)],
)
def test_the_contract_says_what_is_safe_to_repeat(method: str, safe: bool) -> None:
    assert safe_to_repeat(method) is safe
