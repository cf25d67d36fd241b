"""`openagents` as a program uses it, against a real stack: runs are started, followed, awaited and canceled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from oa_testing.stack import StackUnderTest
from openagents import Client, ExecSpec, Refusal, RunCanceled, RunFailed, events
from tests.e2e.callers import Caller, caller_of
from tests.e2e.world import RUN_TIMEOUT_S, Counting

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def program(shared_stack: StackUnderTest, tmp_path: Path) -> AsyncIterator[Caller]:
    async with caller_of(shared_stack, tmp_path) as caller:
        yield caller


def python(code: str) -> ExecSpec:
    return ExecSpec((sys.executable, "-c", code))


async def test_a_run_is_followed_across_a_cut_without_loss_or_repetition(program: Caller, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=60, parts=2)
    seqs: list[int] = []
    stdout = bytearray()
    async with program.world.worker(), Client.from_env(program.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("exec", ExecSpec(tuple(counting.command)), title="counting", labels={"build": "17"})
        async for event in run.events():
            seqs.append(event.seq)
            match event.body:
                case events.RunCreated(spec=spec):
                    assert (spec.title, spec.labels) == ("counting", {"build": "17"})
                case events.TextDelta(stream=events.TextStream.STDOUT, data=data):
                    if not stdout:
                        await program.way.cut()
                        counting.go_on()
                    stdout += data
        finish = await run.result()
        state = await run.state()
        later = [event.seq async for event in run.events(after_seq=seqs[-3])]
    assert program.way.accepted >= 2
    assert seqs == list(range(1, state.latest_seq + 1))
    assert bytes(stdout) == counting.stdout
    assert (finish.outcome, finish.exit_code, finish.stdout_bytes) == ("succeeded", 0, len(counting.stdout))
    assert later == seqs[-2:]


async def test_the_same_key_is_the_same_run(program: Caller) -> None:
    async with Client.from_env(program.env) as client:
        first, again = [await client.start("exec", python("pass"), key="build-17") for _ in range(2)]
        assert first.run_id == again.run_id
        with pytest.raises(Refusal) as other:
            await client.start("exec", python("1"), key="build-17")
        assert other.value.reason == "idempotency_conflict"
        assert (await client.run(first.run_id).state()).run_id == first.run_id


async def test_a_result_is_waited_for_and_a_failure_is_raised(program: Caller) -> None:
    async with Client.from_env(program.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("exec", python("import sys; sys.exit(7)"))
        waiting = asyncio.create_task(run.result())  # before anybody has taken the run
        async with program.world.worker():
            with pytest.raises(RunFailed) as failed:
                await waiting
        assert (failed.value.reason, failed.value.finish.exit_code) == ("nonzero_exit", 7)
        assert run.run_id in str(failed.value)


async def test_a_run_is_cancelled_and_a_wait_that_is_given_up_cancels_nothing(program: Caller) -> None:
    async with program.world.worker(), Client.from_env(program.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("exec", python("print('up', flush=True); import time; time.sleep(600)"))
        async with aclosing(run.events()) as seen:
            async for event in seen:
                if isinstance(event.body, events.TextDelta):
                    break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run.result()
        assert (await run.state()).status == "running"
        await run.cancel("no longer needed")
        with pytest.raises(RunCanceled):
            await run.result()
        asked = [event.body async for event in run.events() if isinstance(event.body, events.RunCancelRequested)]
        assert [body.reason for body in asked] == ["no longer needed"]


async def test_what_is_refused_names_its_reason(program: Caller) -> None:
    async with Client.from_env(program.env) as client:
        with pytest.raises(Refusal) as missing:
            await client.run("run_01JD8V0000000000000000000A").state()
        with pytest.raises(Refusal) as empty:
            await client.start("exec", ExecSpec(()))
        assert (missing.value.reason, empty.value.field) == ("not_found", "spec.exec.argv")
    async with Client.from_env(program.env | {"OA_API_KEY": "oak_gone"}) as client:
        with pytest.raises(Refusal) as unknown:
            await client.start("exec", python("pass"))
        assert unknown.value.reason == "invalid_api_key"


async def test_a_token_for_one_run_opens_no_other(program: Caller) -> None:
    async with Client.from_env(program.env) as client:
        run = await client.start("exec", python("pass"))
        grant = await run.sync_token(ttl_s=60)
    assert grant.topics == {f"run:{run.run_id}:events"}
    assert 0 < grant.expires_in_ms <= 60_000
    assert grant.khala_url.startswith("ws://")
