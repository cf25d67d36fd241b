"""A channel to several replicas, each a process of its own: killed, frozen, draining, and by a name of DNS."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from oa_platform.config.parsers import Address, Secret, Target
from oa_platform.config.shared import GrpcClientSettings, token_hash
from oa_platform.rpc.client import open_channel
from oa_platform.tests.grpc_sample import CLIENT, TOKENS, EchoStub, Request, World, refused
from oa_platform.tests.names import Names
from oa_platform.tls.protection import Protection
from oa_testing.fork_server import PYTHON
from oa_testing.postgres import DEVELOPMENT, free_port
from oa_testing.waiting import PATIENCE_S

TOKEN = "the gateway's token"
SUCCESSOR = "the gateway's next token"
QUICK = replace(CLIENT, reconnect_min_ms=100, reconnect_max_ms=200, resolve_min_ms=100)
WATCHFUL = replace(QUICK, keepalive_interval_ms=1000, keepalive_timeout_ms=1000)
"""Notices a replica that stands still. One that is only slow, it gives up as well."""
CALLS = 40


class Replica:
    """A sample service at an address, which it says in every answer."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **env: str) -> None:
        self.address = Address(host, port or free_port())
        self._env = env
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        variables = {
            "OA_OPS_ADDRESS": f"127.0.0.1:{free_port()}",
            "OA_GRPC_ADDRESS": str(self.address),
            "OA_SERVICE_TOKEN": "a token",
            **DEVELOPMENT,
            "OA_ACCEPTED_SERVICES": f"khala_gateway={token_hash(TOKEN)}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [PYTHON, "-m", "oa_platform.tests.sample_service"],
            env={**os.environ, **variables, **self._env},
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._listens():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address.host, self.address.port)) == 0

    def end(self) -> None:
        """Kill it, also when it stands still."""
        self.process.kill()
        self.process.wait()


@contextmanager
def _replicas(*replicas: Replica) -> Iterator[tuple[Replica, ...]]:
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


def _channel(target: Target, token: str = TOKEN, settings: GrpcClientSettings = QUICK) -> grpc.aio.Channel:
    return open_channel(target, settings, Secret(token), Protection(allow_plaintext=True))


def _target(*replicas: Replica) -> Target:
    return Target(tuple(replica.address for replica in replicas))


async def _who(stub: EchoStub, **options: Any) -> str:
    answer = await stub.one(Request(topic="a"), timeout=PATIENCE_S, **options)
    return str(answer.epoch)


async def _answers(stub: EchoStub) -> Counter[str]:
    """Who answered a number of calls; "" for a call that failed."""
    seen = Counter[str]()
    for _ in range(CALLS):
        try:
            seen[await _who(stub)] += 1
        except grpc.aio.AioRpcError:
            seen[""] += 1
    return seen


async def _until(stub: EchoStub, *wanted: Replica) -> None:
    """Return when all of `wanted`, and nobody else, answers."""
    async with asyncio.timeout(PATIENCE_S):
        while set(await _answers(stub)) != {str(replica.address) for replica in wanted}:
            await asyncio.sleep(0.05)


async def _stream_at(stub: EchoStub, replica: Replica) -> AsyncIterator[Any]:
    """A stream that `replica` serves."""
    while True:
        answers: Any = aiter(stub.down(Request(topic="a")))
        if (await anext(answers)).epoch == str(replica.address):
            return answers  # type: ignore[no-any-return]


def _kill(replica: Replica) -> None:
    replica.process.kill()


def _freeze(replica: Replica) -> None:
    replica.process.send_signal(signal.SIGSTOP)


def _terminate(replica: Replica) -> None:
    replica.process.send_signal(signal.SIGTERM)


async def test_each_healthy_replica_gets_its_share() -> None:
    with _replicas(Replica(), Replica()) as (first, second):
        async with _channel(_target(first, second)) as channel:
            await _until(EchoStub(channel), first, second)
            seen = await _answers(EchoStub(channel))
    assert seen == {str(first.address): CALLS // 2, str(second.address): CALLS // 2}


@pytest.mark.parametrize(
    ("loss", "reason", "settings"),
    [(_kill, "unavailable", QUICK), (_freeze, "unavailable", WATCHFUL), (_terminate, "draining", QUICK)],
)
async def test_calls_and_streams_move_when_a_replica_is_lost(
    loss: Callable[[Replica], None], reason: str, settings: GrpcClientSettings
) -> None:
    with _replicas(Replica(), Replica()) as (first, second):
        async with _channel(_target(first, second), settings=settings) as channel:
            stub = EchoStub(channel)
            await _until(stub, first, second)
            stream = await _stream_at(stub, first)
            loss(first)
            async with asyncio.timeout(PATIENCE_S):
                assert (await refused(stream)).reason == reason
            await _until(stub, second)
            assert (await anext(aiter(stub.down(Request(topic="a"))))).epoch == str(second.address)


async def test_a_replica_that_is_not_there_costs_no_call_and_is_used_when_it_comes() -> None:
    with _replicas(Replica(), Replica()) as (first, second):
        first.end()
        async with _channel(_target(first, second)) as channel:
            stub = EchoStub(channel)
            assert await _who(stub, wait_for_ready=True) == str(second.address)
            assert await _answers(stub) == {str(second.address): CALLS}
            first.start()
            await _until(stub, first, second)


async def test_a_call_that_a_draining_server_did_not_take_goes_to_another() -> None:
    first, second = World(), World()
    async with first.server, second.server:
        target = Target(tuple(Address("127.0.0.1", world.server.port) for world in (first, second)))
        async with open_channel(target, QUICK, Secret(TOKENS["khala_gateway"])) as channel:
            stub = EchoStub(channel)
            async with asyncio.timeout(PATIENCE_S):
                while not (first.echo.seen and second.echo.seen):
                    await _who(stub, wait_for_ready=True)
            taken = first.echo.seen
            first.server.draining.set()  # and its health has not got here yet
            for _ in range(CALLS):
                await _who(stub)
            assert first.echo.seen == taken
            second.server.draining.set()
            assert (await refused(stub.one(Request(topic="a")))).reason == "draining"


async def test_replicas_that_are_restarted_one_after_the_other_refuse_no_call() -> None:
    with _replicas(Replica(OA_LAME_DUCK_S="1"), Replica(OA_LAME_DUCK_S="1")) as replicas:
        async with _channel(_target(*replicas)) as channel:
            stub = EchoStub(channel)
            await _until(stub, *replicas)
            calling = asyncio.create_task(_call_on(stub))
            for replica in replicas:
                _terminate(replica)
                await asyncio.to_thread(replica.process.wait, PATIENCE_S)
                await asyncio.to_thread(replica.start)
                await _until_seen(calling, stub, replica)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling


async def _call_on(stub: EchoStub) -> None:
    """Call without a pause; raises for the first call that fails."""
    while True:
        await asyncio.gather(*(_who(stub) for _ in range(4)))


async def _until_seen(calling: asyncio.Task[None], stub: EchoStub, replica: Replica) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await _who(stub) != str(replica.address):
            assert not calling.done()


async def test_a_name_stands_for_all_that_dns_says_and_is_asked_again_when_one_is_gone() -> None:
    port = free_port()
    with _replicas(Replica("127.0.0.2", port), Replica("127.0.0.3", port), Replica("127.0.0.4", port)) as replicas:
        first, second, third = replicas
        async with Names("127.0.0.2", "127.0.0.3") as names:
            target = Target((Address("runtime-headless.oa.test", port),), f"127.0.0.1:{names.port}")
            async with _channel(target) as channel:
                stub = EchoStub(channel)
                await _until(stub, first, second)
                names.addresses = ("127.0.0.3", "127.0.0.4")
                first.end()
                await _until(stub, second, third)


async def test_a_token_is_replaced_with_both_accepted_in_between() -> None:
    """The steps of the page on secrets, as the servers find them: what callers show is never refused."""
    old, new = f"khala_gateway={token_hash(TOKEN)}", f"khala_gateway={token_hash(SUCCESSOR)}"
    for setting, taken in {old: [TOKEN], f"{old},{new}": [TOKEN, SUCCESSOR], new: [SUCCESSOR]}.items():
        with _replicas(Replica(OA_ACCEPTED_SERVICES=setting)) as (replica,):
            for token in (TOKEN, SUCCESSOR, "a third"):
                async with _channel(Target((replica.address,)), token) as channel:
                    call = EchoStub(channel).one(Request(topic="x"), timeout=PATIENCE_S)
                    if token in taken:
                        await call
                    else:
                        assert (await refused(call)).reason == "service_not_accepted"
