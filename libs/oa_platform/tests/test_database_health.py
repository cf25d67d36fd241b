"""A replica that alone is cut off from the database gets no new calls, and its streams stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio

from oa_base.catalogue import ClientAction
from oa_platform.config.parsers import Address, Secret, Target
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.pool import Postgres
from oa_platform.postgres.silence import Silence
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.database_health import advertise_database
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tests.grpc_sample import CLIENT, LOOPBACK, SERVER, TOKENS, EchoStub, Request, World, refused
from oa_platform.tls.protection import Protection
from oa_testing.postgres import Database, free_port
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S

CALLS = 20


def test_silence_begins_with_a_failed_look_after_its_time_and_ends_with_the_next_success() -> None:
    silence = Silence(after_s=5, now_s=100)
    silence.failed(104.9)
    assert not silence.began.is_set()
    silence.answered(104)
    silence.failed(108.9)
    assert not silence.began.is_set(), "something succeeded in between: the database is slow or busy"
    silence.failed(109)
    assert (silence.began.is_set(), silence.ended.is_set()) == (True, False)
    silence.answered(110)
    assert (silence.began.is_set(), silence.ended.is_set()) == (False, True)
    silence.failed(114)
    assert not silence.began.is_set()


@dataclass
class _Replica:
    world: World
    silence: Silence

    def cut_off(self) -> None:
        self.silence.failed(1)

    def connected(self) -> None:
        self.silence.answered(2)


@asynccontextmanager
async def _two_replicas() -> AsyncIterator[tuple[_Replica, _Replica, EchoStub]]:
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            replica = _Replica(World(replace(SERVER, address=Address(LOOPBACK, free_port()))), Silence(1, 0))
            await stack.enter_async_context(replica.world.server)
            follow = asyncio.create_task(advertise_database(replica.silence, replica.world.server))
            stack.push_async_callback(cancel_and_wait, follow)
            replicas.append(replica)
        target = Target(tuple(Address(LOOPBACK, replica.world.server.port) for replica in replicas))
        channel = open_channel(target, CLIENT, Secret(TOKENS["khala_gateway"]), Protection(allow_plaintext=True))
        yield *replicas, EchoStub(await stack.enter_async_context(channel))  # type: ignore[misc]


async def _until_only(stub: EchoStub, *wanted: _Replica, others: _Replica | None = None) -> None:
    """Return when all of `wanted`, and nobody else, gets calls."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            before = [replica.world.echo.seen for replica in wanted], others and others.world.echo.seen
            for _ in range(CALLS):
                await stub.one(Request(topic="a"), timeout=PATIENCE_S)
            after = [replica.world.echo.seen for replica in wanted], others and others.world.echo.seen
            if before[1] == after[1] and all(old < new for old, new in zip(before[0], after[0], strict=True)):
                return


async def test_calls_leave_the_replica_that_is_cut_off_and_come_back_and_its_streams_stay() -> None:
    async with _two_replicas() as (first, second, stub):
        await _until_only(stub, first, second)
        streams = [stub.both(_endless()) for _ in range(2)]  # one at each
        for stream in streams:
            await anext(aiter(stream))

        first.cut_off()
        await _until_only(stub, second, others=first)
        for stream in streams:
            for _ in range(3):
                await anext(aiter(stream))

        first.connected()
        await _until_only(stub, first, second)
        for stream in streams:
            stream.cancel()


async def test_while_all_are_cut_off_callers_are_told_at_once_to_try_again() -> None:
    async with _two_replicas() as (first, second, stub):
        await _until_only(stub, first, second)
        first.cut_off()
        second.cut_off()
        await _until_answered(stub, False)
        seen = first.world.echo.seen + second.world.echo.seen
        refusal = await refused(stub.one(Request(topic="a"), timeout=PATIENCE_S))
        assert (refusal.reason, refusal.info.action) == ("unavailable", ClientAction.RETRY)
        assert first.world.echo.seen + second.world.echo.seen == seen

        second.connected()
        await _until_answered(stub, True)


async def _until_answered(stub: EchoStub, answered: bool) -> None:
    """Return when calls are answered, or when they no longer are."""
    async with asyncio.timeout(PATIENCE_S):
        while await _answers(stub) is not answered:
            await asyncio.sleep(0.01)


async def _answers(stub: EchoStub) -> bool:
    try:
        await stub.one(Request(topic="a"), timeout=PATIENCE_S)
    except grpc.aio.AioRpcError:
        return False
    return True


async def _endless() -> AsyncIterator[Request]:
    while True:
        yield Request(topic="a")
        await asyncio.sleep(0.01)


async def test_a_frozen_connection_is_silence_until_it_moves_again(
    empty_database: Database, fault_proxies: FaultProxies
) -> None:
    proxy = await fault_proxies("127.0.0.1", empty_database.port)
    settings = DatabaseSettings(
        url=Secret(empty_database.runtime.replace(f":{empty_database.port}/", f":{proxy.port}/")),
        may_lose_commits=True,
        pool_max=2,
        acquire_timeout_s=1,
        statement_timeout_ms=1000,
        watch_ms=20,
        silent_s=0.2,
    )
    async with Postgres(settings, "test") as postgres, asyncio.timeout(PATIENCE_S):
        assert not postgres.silence.began.is_set()
        proxy.stall()
        await postgres.silence.began.wait()
        proxy.resume()
        await postgres.silence.ended.wait()
        await postgres.check()


class _OneMoreSuccess(Silence):
    """Hears of a success right before the first look that hangs is taken for failed."""

    hung = 0

    def failed(self, now_s: float) -> None:
        self.hung += 1
        if self.hung == 1:
            self.answered(now_s)
        super().failed(now_s)


async def test_a_look_that_hangs_is_silence_though_something_else_succeeded_after_it_began(
    empty_database: Database, fault_proxies: FaultProxies
) -> None:
    proxy = await fault_proxies("127.0.0.1", empty_database.port)
    settings = DatabaseSettings(
        url=Secret(empty_database.runtime.replace(f":{empty_database.port}/", f":{proxy.port}/")),
        may_lose_commits=True,
        statement_timeout_ms=int(PATIENCE_S * 1000),
        watch_ms=20,
        silent_s=0.2,
    )
    postgres = Postgres(settings, "test")
    postgres.silence = _OneMoreSuccess(settings.silent_s, 0)
    async with postgres, asyncio.timeout(PATIENCE_S):
        proxy.stall()
        await postgres.silence.began.wait()
        proxy.resume()


async def test_work_that_is_slow_is_not_silence(empty_database: Database) -> None:
    """The looks find no free connection, but what takes them all succeeds."""
    settings = DatabaseSettings(
        url=Secret(empty_database.runtime),
        may_lose_commits=True,
        pool_min=1,
        pool_max=1,
        acquire_timeout_s=0.05,
        watch_ms=20,
        silent_s=PATIENCE_S,
    )
    async with Postgres(settings, "test") as postgres:
        answered: list[Any] = []
        for _ in range(3):
            async with postgres.acquire() as connection:
                await connection.execute("SELECT pg_sleep(0.2)")
            answered.append(postgres.silence._answered_s)
        assert answered == sorted(set(answered))
        assert postgres.silence.ended.is_set()
