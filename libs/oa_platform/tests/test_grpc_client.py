"""Our channels: what goes along with a call, and how they live through the other side's restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address
from oa_platform.health.failures import refusal_for_outsiders, refusal_from_rpc_error
from oa_platform.telemetry.context import adopt_request_id, current_request_id
from oa_platform.tests.grpc_sample import (
    LOOPBACK,
    SERVER,
    Behave,
    EchoStub,
    Request,
    World,
    never,
    nothing,
    refused,
    running,
)
from oa_platform.tests.traces import current_trace_id, span
from oa_testing.peers.fault_proxy import FaultProxy
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S
from oa_wire.status import STATUS_METADATA_KEY, to_status


@asynccontextmanager
async def _behind_a_proxy(
    fault_proxies: FaultProxies, behave: Behave = nothing, **settings: Any
) -> AsyncIterator[tuple[FaultProxy, grpc.aio.Channel]]:
    """A server, and a channel that reaches it through a proxy."""
    world = World()
    world.echo.behave = behave
    async with world.server:
        proxy = await fault_proxies(LOOPBACK, world.server.port)
        async with world.channel(port=proxy.port, **settings) as channel:
            yield proxy, channel


async def test_request_id_and_trace_go_along() -> None:
    seen: list[tuple[str, str]] = []

    async def behave(_: Message) -> None:
        seen.append((current_request_id(), current_trace_id()))

    async with running() as (world, stub):
        world.echo.behave = behave
        with span("test"):
            request_id, trace_id = adopt_request_id("req-42"), current_trace_id()
            assert trace_id
            await stub.one(Request(topic="a"))
            async for _ in stub.down(Request(topic="a")):
                pass
            await stub.up(iter([Request(topic="a")]))
            async for _ in stub.both(iter([Request(topic="a")])):
                pass
    assert seen == [(request_id, trace_id)] * 4


async def test_a_request_id_that_is_no_such_thing_is_replaced() -> None:
    seen = []

    async def behave(_: Message) -> None:
        seen.append(current_request_id())

    async with running() as (world, stub):
        world.echo.behave = behave
        await stub.one(Request(topic="a"), metadata=(("x-request-id", "a b; DROP"),))
        await stub.one(Request(topic="a"), metadata=(("x-request-id", "mine"),))
    assert seen[0].startswith("req_")
    assert seen[1] == "mine"


async def test_metadata_of_a_call_is_kept_and_cannot_change_who_we_are() -> None:
    async with running() as (_, stub):
        answer = await stub.one(
            Request(topic="a"), metadata=(("x-oa-service-token", "control's token"), ("x-other", "1"))
        )
        assert "khala_gateway" in answer.owner_user_id


async def test_a_server_that_is_away_is_unavailable_and_used_again_when_it_is_back() -> None:
    world = World()
    async with world.server:
        pass
    address = Address(LOOPBACK, world.server.port)
    async with world.channel(reconnect_min_ms=50, reconnect_max_ms=100) as channel:
        stub = EchoStub(channel)
        assert (await refused(stub.one(Request(topic="a")))).reason == "unavailable"
        again = World(replace(SERVER, address=address))
        async with again.server:
            answer = await stub.one(Request(topic="a"), wait_for_ready=True, timeout=PATIENCE_S)
            assert answer.epoch == "a"


async def test_connecting_may_take_longer_than_the_pauses_between_attempts(fault_proxies: FaultProxies) -> None:
    async with _behind_a_proxy(fault_proxies, reconnect_min_ms=50, reconnect_max_ms=100) as (proxy, channel):
        proxy.delay(0.5)
        assert (await EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S)).epoch == "a"


async def test_a_peer_that_does_not_answer_is_given_up_after_the_time_for_connecting(
    fault_proxies: FaultProxies,
) -> None:
    async with _behind_a_proxy(fault_proxies, connect_timeout_ms=100) as (proxy, channel):
        proxy.stall()
        async with asyncio.timeout(PATIENCE_S):
            assert (await refused(EchoStub(channel).one(Request(topic="a")))).reason == "unavailable"


async def test_a_broken_connection_ends_a_stream_typed(fault_proxies: FaultProxies) -> None:
    world = World()
    async with world.server:
        proxy = await fault_proxies(LOOPBACK, world.server.port)
        world.echo.behave = never
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{proxy.port}") as channel:
            stub = EchoStub(channel)
            call: Any = stub.down(Request(topic="a"), metadata=(("x-oa-service-token", "control's token"),))
            answers = aiter(call)
            await anext(answers)
            await proxy.cut()
            assert (await refused(answers)).reason == "unavailable"


async def test_a_connection_that_is_silent_is_given_up(fault_proxies: FaultProxies) -> None:
    """Keepalive: a peer that is gone without a word is noticed."""
    limits = {"keepalive_interval_ms": 1000, "keepalive_timeout_ms": 2000}
    async with _behind_a_proxy(fault_proxies, never, **limits) as (proxy, channel):
        call: Any = EchoStub(channel).down(Request(topic="a"))
        answers = aiter(call)
        await anext(answers)
        proxy.stall()
        async with asyncio.timeout(PATIENCE_S):
            assert (await refused(answers)).reason == "unavailable"


def error(code: grpc.StatusCode, details: str, *trailers: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


def test_outsiders_hear_what_a_service_says_and_no_text_of_a_transport() -> None:
    said = Refusal("not_found", "there is no such run")
    theirs = error(grpc.StatusCode.NOT_FOUND, "…", (STATUS_METADATA_KEY, to_status(said).SerializeToString()))
    assert refusal_for_outsiders(theirs, "runtime").message == said.message
    for code, reason in (
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.UNKNOWN, "unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded"),
    ):
        refusal = refusal_for_outsiders(error(code, "ipv4:127.0.0.1:9081: Connection refused"), "runtime")
        assert refusal.reason == reason
        assert "runtime" in refusal.message
        assert "127.0.0.1" not in refusal.message


def test_a_foreign_error_gets_the_nearest_reason() -> None:
    for code, reason in (
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.UNKNOWN, "internal"),
        (grpc.StatusCode.CANCELLED, "cancelled"),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown_method"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded"),
    ):
        assert refusal_from_rpc_error(error(code, "…")).reason == reason
    too_large = error(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)")
    assert refusal_from_rpc_error(too_large).reason == "request_too_large"
    broken = error(grpc.StatusCode.INTERNAL, "…", ("grpc-status-details-bin", b"\xff\xff"))
    assert refusal_from_rpc_error(broken).reason == "internal"


async def test_a_service_is_reached_past_proxies_of_the_environment(dead_proxies: dict[str, str]) -> None:
    async with running() as (_, stub):
        await stub.one(Request(topic="a"), timeout=PATIENCE_S)
