"""How a worker comes back when its stream breaks: at once, under its id, with the token that it has."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_testing.waiting import PATIENCE_S
from oa_worker import Worker, WorkerLimits
from oa_worker.sdk.notices import Detached, Notice
from oa_worker.sdk.transport.tokens import KeptTokens, WorkerToken
from oa_worker.tests.fake_runtime import RUN, WORKER, FakeRuntime, FakeTokens, Faults
from oa_worker.tests.scripts import QUICK, Patient, Script, numbers, scripted

UNAVAILABLE = Refusal("unavailable", "control is away")


async def _worked(
    runtime: FakeRuntime, limits: WorkerLimits = QUICK, tokens: FakeTokens | None = None, count: int = 20
) -> list[Notice]:
    """What a worker said while it did the run."""
    notices: list[Notice] = []
    worker = Worker("test", [Script(count)], tokens or FakeTokens(runtime), limits=limits, notify=notices.append)
    working = asyncio.create_task(worker.run())
    try:
        await runtime.until(lambda: runtime.logs[RUN].finished)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert numbers(runtime) == [str(number) for number in range(count)]
    return notices


@pytest.mark.parametrize(("steady_after_ms", "wait_ms"), [(0, 0), (3_600_000, 9)])
async def test_the_first_try_is_at_once_if_the_stream_stood_for_a_while(
    steady_after_ms: int, wait_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oa_worker.sdk.transport.waits.random.random", lambda: 0.99)
    async with scripted(faults=Faults(drop_before={1})).running() as runtime:
        notices = await _worked(runtime, replace(QUICK, steady_after_ms=steady_after_ms))
    assert [notice.retry_in_ms for notice in notices if isinstance(notice, Detached)] == [wait_ms]


async def test_tries_that_fail_are_made_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_worker.sdk.transport.waits.random.random", lambda: 0.99)
    faults = Faults(attach=[Refusal("internal", "no word about a wait")] * 5)
    async with scripted(faults=faults).running() as runtime:
        notices = await _worked(runtime)
    waits_ms = [notice.retry_in_ms for notice in notices if isinstance(notice, Detached)]
    assert waits_ms == [9, 19, 39, 49, 49], "doubled, up to the longest"


async def test_a_wait_that_the_refusal_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oa_worker.sdk.transport.waits.random.random", lambda: 0.99)
    faults = Faults(attach=[Refusal("unavailable", "not ready", retry_after_ms=ms) for ms in (30, 5)])
    async with scripted(faults=faults).running() as runtime:
        notices = await _worked(runtime)
    assert [notice.retry_in_ms for notice in notices if isinstance(notice, Detached)] == [30, 19]


async def test_a_worker_whose_stream_is_not_its_own_any_more_comes_back_under_its_id() -> None:
    """It may still hold its leases: the database went back by some seconds, say."""
    faults = Faults(refuse={2: Refusal("worker_lost", "another stream speaks for it")})
    limits = replace(QUICK, max_append_events=5)
    async with scripted(faults=faults).running() as runtime:
        await _worked(runtime, limits)
        assert [hello.worker_id for hello in runtime.hellos] == ["", WORKER]
        assert [lease.run_id for lease in runtime.hellos[1].held_leases] == [RUN]


async def test_a_broken_stream_is_replaced_without_control() -> None:
    async with scripted(faults=Faults(drop_before={1, 2, 3})).running() as runtime:
        tokens = FakeTokens(runtime)
        tokens.failures = []
        get = tokens.get

        async def once() -> WorkerToken:
            if tokens.given:
                raise UNAVAILABLE
            return await get()

        tokens.get = once  # type: ignore[method-assign]
        await _worked(runtime, tokens=tokens)
        assert runtime.tokens == ["Bearer token-1"] * 4


async def test_a_stream_stays_while_control_has_no_new_token() -> None:
    async with scripted().running() as runtime:
        tokens = FakeTokens(runtime, lifetime_s=0.2)
        notices: list[Notice] = []
        worker = Worker("test", [Patient()], tokens, limits=QUICK, notify=notices.append)
        working = asyncio.create_task(worker.run())
        await runtime.until(lambda: runtime.streams == 1)
        tokens.failures = [UNAVAILABLE] * 10
        await runtime.until(lambda: runtime.streams == 2)
        assert tokens.failures == []
        assert runtime.tokens == ["Bearer token-1", "Bearer token-2"]
        assert not any(isinstance(notice, Detached) for notice in notices)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_key_that_is_revoked_ends_the_worker_when_its_token_is_to_be_replaced() -> None:
    async with scripted().running() as runtime:
        tokens = FakeTokens(runtime, lifetime_s=0.2)
        worker = Worker("test", [Patient()], tokens, limits=QUICK)
        working = asyncio.create_task(worker.run())
        await runtime.until(lambda: runtime.streams == 1)
        tokens.failures = [Refusal("invalid_api_key", "revoked")]
        with pytest.raises(Refusal) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await working
    assert caught.value.reason == "invalid_api_key"


async def test_a_route_that_is_missing_for_a_while_ends_no_worker_that_was_attached() -> None:
    """A proxy is being rolled, and answers 404 or UNIMPLEMENTED."""
    missing = Refusal("unknown_method", "there is no such method here; check the name and the address")
    async with scripted().running() as runtime:
        tokens = FakeTokens(runtime, lifetime_s=0.2)
        notices: list[Notice] = []
        worker = Worker("test", [Patient()], tokens, limits=QUICK, notify=notices.append)
        working = asyncio.create_task(worker.run())
        await runtime.until(lambda: runtime.streams == 1)
        tokens.failures, runtime.faults.attach = [missing] * 2, [missing] * 2
        await runtime.until(lambda: [hello.worker_id for hello in runtime.hellos] == ["", WORKER])
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert tokens.failures == runtime.faults.attach == []
    assert [notice.refusal.reason for notice in notices if isinstance(notice, Detached)] == ["unknown_method"] * 2


async def test_a_worker_that_was_never_attached_says_that_its_address_is_wrong() -> None:
    missing = Refusal("unknown_method", "there is no such method here; check the name and the address")
    async with scripted(faults=Faults(attach=[missing])).running() as runtime:
        with pytest.raises(Refusal, match="check the name and the address"):
            await Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK).run()


async def test_a_kept_token_is_used_while_it_lives_and_not_refused() -> None:
    source = FakeTokens(FakeRuntime({}), lifetime_s=3600)
    tokens = KeptTokens(source)
    first = await tokens.get(at_once=True)
    kept = await tokens.get(at_once=True)
    assert (kept.token, first.token) == ("token-1", "token-1")
    assert kept.lifetime_s <= first.lifetime_s
    assert (await tokens.get(at_once=False)).token == "token-2"
    source.failures = [UNAVAILABLE]
    assert (await tokens.get(at_once=False)).token == "token-2"
    source.failures = [Refusal("invalid_api_key", "revoked")]
    with pytest.raises(Refusal, match="revoked"):
        await tokens.get(at_once=False)
    tokens.drop()
    source.failures = [UNAVAILABLE]
    with pytest.raises(Refusal, match="away"):
        await tokens.get(at_once=True)
    source.lifetime_s = 0.0
    await tokens.renew()
    source.failures = [UNAVAILABLE]
    with pytest.raises(Refusal, match="away"):
        await tokens.get(at_once=True)


# ------------------------------------------------------------------------------------------------- revocations

REVOKED = Refusal("token_revoked", "the key behind the token was ended")


async def test_a_worker_whose_token_was_revoked_stops_its_handlers_and_comes_back_once_with_a_fresh_one() -> None:
    async with scripted().running() as runtime:
        adapter, tokens = Patient(), FakeTokens(runtime)
        working = asyncio.create_task(Worker("test", [adapter], tokens, limits=QUICK).run())
        await runtime.until(lambda: bool(runtime.logs[RUN].events))
        runtime.take_lease(RUN, say=False)  # as a runtime does that ends a stream for this
        runtime.refuse(REVOKED)
        await runtime.until(lambda: runtime.streams == 2)
        assert adapter.stopped == 1
        assert runtime.tokens == ["Bearer token-1", "Bearer token-2"]
        assert list(runtime.hellos[1].held_leases) == []
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_worker_whose_fresh_token_is_revoked_too_ends_and_says_so() -> None:
    async with scripted(faults=Faults(attach=[REVOKED] * 10)).running() as runtime:
        notices: list[Notice] = []
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK, notify=notices.append)
        with pytest.raises(Refusal) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await worker.run()
    assert (caught.value.reason, runtime.tokens) == ("token_revoked", ["Bearer token-1", "Bearer token-2"])
    assert len([notice for notice in notices if isinstance(notice, Detached)]) == 1


async def test_a_worker_outlives_any_number_of_rotations_of_its_key() -> None:
    """Only tokens that are refused in a row end a worker. Each of these has carried a stream for a while."""
    limits = replace(QUICK, steady_after_ms=0)
    rotations = limits.max_rejected_tokens + 2
    async with scripted().running() as runtime:
        working = asyncio.create_task(Worker("test", [Patient()], FakeTokens(runtime), limits=limits).run())
        for rotation in range(1, rotations + 1):
            await runtime.until(lambda n=rotation: runtime.streams == n and len(runtime.held) >= n)  # type: ignore[misc]
            runtime.refuse(REVOKED)
        await runtime.until(lambda: runtime.streams == rotations + 1)
        assert not working.done()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_worker_whose_account_was_revoked_ends_when_its_key_gives_no_token_any_more() -> None:
    async with scripted().running() as runtime:
        adapter, tokens = Patient(), FakeTokens(runtime)
        working = asyncio.create_task(Worker("test", [adapter], tokens, limits=QUICK).run())
        await runtime.until(lambda: bool(runtime.logs[RUN].events))
        tokens.failures = [Refusal("invalid_api_key", "the key is unknown or revoked")]
        runtime.refuse(REVOKED)
        with pytest.raises(Refusal) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await working
    assert (caught.value.reason, adapter.stopped, runtime.streams) == ("invalid_api_key", 1, 1)
