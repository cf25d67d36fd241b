"""A real server on loopback: what comes back for every kind of call and every kind of trouble."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address
from oa_platform.config.shared import GrpcServerSettings
from oa_platform.telemetry import metrics
from oa_platform.telemetry.context import REQUEST_ID_KEY
from oa_platform.tests.grpc_sample import ECHO, LOOPBACK, SERVER, EchoStub, Request, World, never, refused, running
from oa_testing.waiting import PATIENCE_S, eventually
from oa_wire.status import LOST_STATUS, from_code

KINDS = ("one", "down", "up", "both")


async def _several(*topics: str) -> AsyncIterator[Request]:
    for topic in topics:
        yield Request(topic=topic)


def _call(stub: EchoStub, kind: str, *topics: str, **options: Any) -> Any:
    argument = _several(*topics) if kind in ("up", "both") else Request(topic=topics[0])
    return getattr(stub, kind)(argument, **options)


async def _refused(stub: EchoStub, kind: str, *topics: str, **options: Any) -> Refusal:
    """What a call is refused with. One that is ended while it sends may lose that (`LOST_STATUS`), and is repeated."""
    lost = from_code("INTERNAL", LOST_STATUS).message
    while (got := await refused(_call(stub, kind, *topics, **options))).message == lost:
        pass
    return got


def _raiser(error: BaseException) -> Any:
    async def behave(_: Message) -> None:
        raise error

    return behave


def _count(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


async def test_all_four_kinds_of_calls() -> None:
    async with running() as (_, stub):
        assert (await _call(stub, "one", "a")).epoch == "a"
        assert [answer.head async for answer in _call(stub, "down", "a")] == [0, 1, 2]
        assert (await _call(stub, "up", "a", "b")).epoch == "a,b"
        assert [answer.epoch async for answer in _call(stub, "both", "a", "b")] == ["a", "b"]


async def test_a_handler_knows_who_calls() -> None:
    async with running() as (_, stub):
        assert "khala_gateway" in (await _call(stub, "one", "a")).owner_user_id


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_arrives_as_it_was_raised(kind: str) -> None:
    async with running() as (world, stub):
        raised = Refusal(
            "seq_conflict", "Read ägain.", field="expected_seq", metadata={"current_seq": "7"}, retry_after_ms=1500
        )
        world.echo.behave = _raiser(raised)
        got = await _refused(stub, kind, "a")
    assert (got.reason, got.message, got.field) == (raised.reason, raised.message, raised.field)
    assert (got.metadata, got.retry_after_ms) == (raised.metadata, raised.retry_after_ms)


@pytest.mark.parametrize("letter", ["a", "ä", "𝄞", "\n"])
async def test_a_refusal_of_any_size_arrives(letter: str) -> None:
    """gRPC's headers are limited: a long message is cut, not lost."""
    long = letter * 20_000
    async with running() as (world, stub):
        world.echo.behave = _raiser(Refusal("not_found", long, field=long, metadata={"k": long}))
        got = await refused(_call(stub, "one", "a"))
    assert got.reason == "not_found"
    for text in (got.message, got.field):
        assert text
        assert long.startswith(text)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_defect_is_internal_and_tells_nothing_but_the_request_id(kind: str) -> None:
    async with running() as (world, stub):
        world.echo.behave = _raiser(KeyError("geheim"))
        got = await _refused(stub, kind, "a", metadata=((REQUEST_ID_KEY, "req-7"),))
    assert got.reason == "internal"
    assert got.metadata == {"request_id": "req-7"}
    assert "geheim" not in got.message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.PostgresConnectionError(), "unavailable"),
        (asyncpg.exceptions.CannotConnectNowError(), "unavailable"),
        (asyncpg.InterfaceError("closed"), "unavailable"),
        (ConnectionRefusedError(), "unavailable"),
        (asyncpg.exceptions.DeadlockDetectedError(), "unavailable"),
        (asyncpg.exceptions.DataCorruptedError("invalid page in block 3"), "unavailable"),
        (asyncpg.exceptions.QueryCanceledError(), "deadline_exceeded"),
        (TimeoutError(), "deadline_exceeded"),
        (asyncpg.exceptions.UniqueViolationError(), "internal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_what_fails_below_is_typed(error: Exception, reason: str) -> None:
    async with running() as (world, stub):
        world.echo.behave = _raiser(error)
        assert (await refused(_call(stub, "one", "a"))).reason == reason


@pytest.mark.parametrize("kind", ["one", "down"])
async def test_single_requests_are_checked(kind: str) -> None:
    async with running() as (world, stub):
        got = await _refused(stub, kind, "")
        assert (got.reason, got.field) == ("missing_field", "topic")
        assert world.echo.seen == 0


async def test_what_stands_in_a_stream_is_for_its_handler_to_check() -> None:
    """It knows whether one bad message ends the stream, or is answered and the next one read."""
    async with running() as (_, stub):
        assert (await _call(stub, "up", "a", "x" * 161)).epoch == "a," + "x" * 161


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_message(kind: str) -> None:
    async def several() -> AsyncIterator[bytes]:
        yield b"\xff\xff"

    async with running() as (world, _), world.channel() as channel:
        stub = EchoStub(channel, serialize=lambda data: data)
        argument: Any = several() if kind in ("up", "both") else b"\x0a\x05ab"
        assert (await refused(getattr(stub, kind)(argument, wait_for_ready=True))).reason == "malformed_message"


async def test_a_request_may_have_the_limit_and_no_more() -> None:
    small = replace(SERVER, max_message_bytes=1024)
    async with running(small) as (world, _), world.channel() as channel:
        stub = EchoStub(channel, serialize=lambda data: data)
        good = Request(topic="t").SerializeToString()
        filler = 1024 - len(good) - 4  # an unknown field: two bytes of tag, two of length
        full = good + b"\xfa\x3f" + bytes([filler & 0x7F | 0x80, filler >> 7]) + b"x" * filler
        assert len(full) == 1024
        assert (await stub.one(full)).epoch == "t"
        assert (await refused(stub.one(full + b"\x0a\x01t"))).reason == "request_too_large"


async def test_a_request_far_above_the_limit_is_typed_too() -> None:
    """gRPC itself refuses these, without our details; the client makes the same reason of it."""
    async with running(replace(SERVER, max_message_bytes=1024)) as (world, _), world.channel() as channel:
        stub = EchoStub(channel, serialize=lambda data: data)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.one(b"x" * (2 << 20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("caller", ["nobody", "stranger"])
@pytest.mark.parametrize("kind", [*KINDS, "nowhere"])
async def test_nobody_is_served_without_identity(kind: str, caller: str) -> None:
    world = World()
    async with world.server, world.bare_channel() if caller == "nobody" else world.channel("stranger") as channel:
        got = await _refused(EchoStub(channel), kind, "a")
        assert got.reason == "service_not_accepted"
        assert world.echo.seen == 0


async def test_an_unknown_method_is_refused_and_counted() -> None:
    async with running() as (_, stub):
        assert (await refused(_call(stub, "nowhere", "a"))).reason == "unknown_method"
    assert _count("oa_rpcs_total", method="unknown", reason="unknown_method") > 0


async def test_health_is_open_and_reflection_is_not() -> None:
    world = World()
    async with world.server, world.bare_channel() as bare, world.channel() as channel:
        for name in ("", ECHO):
            answer = await health_pb2_grpc.HealthStub(bare).Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub
        assert (await refused(stub(bare).ServerReflectionInfo(iter([request])))).reason == "service_not_accepted"
        async for answer in stub(channel).ServerReflectionInfo(iter([request])):
            names = {service.name for service in answer.list_services_response.service}
        assert {ECHO, "grpc.health.v1.Health"} <= names


def _ended(kind: str, reason: str) -> float:
    return _count("oa_rpcs_total", method=f"/{ECHO}/{kind}", reason=reason)


async def test_the_caller_deadline_ends_a_call() -> None:
    before = _ended("one", "deadline_exceeded")
    async with running() as (world, stub):
        world.echo.behave = never
        assert (await refused(_call(stub, "one", "a", timeout=0.1))).reason == "deadline_exceeded"
        await eventually(lambda: _ended("one", "deadline_exceeded") == before + 1)
        assert _count("oa_rpcs_in_flight", kind="unary") == 0


@pytest.mark.parametrize("flood", [False, True], ids=["while it waits", "while it sends"])
async def test_a_call_that_is_given_up_ends_and_is_counted(flood: bool) -> None:
    before = _ended("down", "cancelled")
    async with running() as (world, stub):
        world.echo.behave = never
        if flood:  # more than the connection takes, so that the handler is stopped in a `yield`
            world.echo.answers, world.echo.padding = 100_000, "x" * 10_000
        call = _call(stub, "down", "a")
        for _ in range(3):
            await call.read()
        await asyncio.sleep(0.1)
        assert _count("oa_rpcs_in_flight", kind="stream") == 1
        call.cancel()
        await eventually(lambda: world.echo.left == 1)
        await eventually(lambda: _ended("down", "cancelled") == before + 1)
        assert _count("oa_rpcs_in_flight", kind="stream") == 0


@pytest.mark.parametrize(
    ("kind", "settings"), [("one", replace(SERVER, max_calls=2)), ("both", replace(SERVER, max_streams=2))]
)
async def test_more_calls_than_the_limit_are_refused_and_harm_nobody(kind: str, settings: GrpcServerSettings) -> None:
    async with running(settings) as (world, stub):
        release = asyncio.Event()

        async def behave(_: Message) -> None:
            await release.wait()

        world.echo.behave = behave

        async def call() -> None:
            answer = _call(stub, kind, "a")
            if kind == "one":
                await answer
            else:
                assert [one.epoch async for one in answer] == ["a"]

        held = [asyncio.create_task(call()) for _ in range(2)]
        counted = {"one": "unary", "both": "stream"}[kind]
        await eventually(lambda: _count("oa_rpcs_in_flight", kind=counted) == 2)
        got = await _refused(stub, kind, "a")
        assert got.reason == "overloaded"
        assert got.retry_after_ms > 0
        release.set()
        await asyncio.gather(*held)
        await call()


async def test_a_drain_lets_calls_end_and_streams_go() -> None:
    async with running(replace(SERVER, stream_drain_s=1, call_drain_s=PATIENCE_S)) as (world, stub):
        release = asyncio.Event()

        async def behave(_: Message) -> None:
            await release.wait()

        world.echo.behave = behave
        unary = asyncio.create_task(_finished(stub))
        stream = aiter(_call(stub, "down", "a"))
        await anext(stream)
        await eventually(lambda: world.echo.seen == 1)
        leaving = asyncio.create_task(world.server.__aexit__(None, None, None))
        await world.server.draining.wait()
        # Told by the server, or by the channel, which may have seen its health go before.
        assert (await refused(_call(stub, "one", "b"))).reason in ("draining", "unavailable")
        assert (await refused(stream)).reason == "draining"
        release.set()
        assert await unary == "a"
        await leaving


async def _finished(stub: EchoStub) -> str:
    answer = await _call(stub, "one", "a")
    return str(answer.epoch)


async def test_who_watches_health_holds_up_no_drain() -> None:
    world = World(replace(SERVER, stream_drain_s=600))
    await world.server.__aenter__()
    async with world.bare_channel() as channel:
        answers = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(answers)).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(PATIENCE_S):
            await world.server.__aexit__(None, None, None)
        assert (await refused(answers)).reason == "draining"


async def test_a_stream_that_ends_by_itself_in_a_drain_is_not_cut() -> None:
    async with running() as (world, stub):

        async def behave(_: Message) -> None:
            await world.server.draining.wait()

        world.echo.behave = behave
        stream = aiter(_call(stub, "down", "a"))
        heads = [(await anext(stream)).head]
        leaving = asyncio.create_task(world.server.__aexit__(None, None, None))
        heads += [answer.head async for answer in stream]
        assert heads == [0, 1, 2]
        await leaving


async def test_health_says_not_serving_during_a_drain() -> None:
    world = World(replace(SERVER, stream_drain_s=0.5))
    async with world.server, world.bare_channel() as bare, world.channel() as channel:
        world.echo.behave = never
        stream = aiter(_call(EchoStub(channel), "down", "a"))
        await anext(stream)
        watch = health_pb2_grpc.HealthStub(bare).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        leaving = asyncio.create_task(world.server.__aexit__(None, None, None))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await leaving
        assert (await refused(stream)).reason == "draining"


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        world = World(replace(SERVER, address=Address(LOOPBACK, port)))
        with pytest.raises(Refusal) as caught:
            await world.server.__aenter__()
    assert caught.value.reason == "port_in_use"
    assert (caught.value.field, caught.value.metadata) == ("OA_GRPC_ADDRESS", {"port": str(port)})
    assert str(port) in caught.value.message


async def test_two_servers_dont_share_a_port() -> None:
    async with running() as (world, _):
        second = World(replace(SERVER, address=Address(LOOPBACK, world.server.port)))
        with pytest.raises(Refusal) as caught:
            await second.server.__aenter__()
        assert caught.value.reason == "port_in_use"


async def test_refusals_are_counted() -> None:
    labels = {"reason": "missing_field", "surface": "grpc"}
    before = _count("oa_refusals_total", **labels)
    async with running() as (_, stub):
        await refused(_call(stub, "one", ""))
        await _call(stub, "one", "a")
    assert _count("oa_refusals_total", **labels) == before + 1
    assert _count("oa_rpc_duration_seconds_count", method=f"/{ECHO}/one", reason="ok") > 0
