"""The TypeScript client in Node and a real gateway: nothing is lost, doubled, or out of order, whatever breaks."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from oa_khala.frames import Event, Form
from oa_khala.wire import decode_server_frame
from oa_runlog.proof.chain import chain_over
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.tests.fake_upstream import FakeUpstream, Faults, Log
from services.khala_gateway.tests.harness import USER, Limits, T, running
from services.khala_gateway.tests.process import GatewayProcess
from tests.typescript.package import COMPILE_TIMEOUT_S, compiled, following

pytestmark = pytest.mark.timeout(COMPILE_TIMEOUT_S + 60)

RUN_ID = T.split(":")[1]
KILLS = 2


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """The package, compiled."""
    compiled()


@dataclass
class RunLog(Log):
    """A run at its authority, with the chain values of runs."""

    def chain(self, seq: int) -> bytes:
        """See Log."""
        return chain_over(RUN_ID, (payload(frame) for frame in self.frames[:seq]))


def payload(frame: bytes) -> bytes:
    """What an EVENT carries."""
    event = decode_server_frame(frame, Form.PROTO)
    assert isinstance(event, Event)
    return event.payload


def with_run(upstream: FakeUpstream, count: int) -> RunLog:
    """`T` with so many events."""
    log = upstream.logs[T] = RunLog(USER)
    upstream.append(T, count)
    return log


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    await process.start_upstreams()
    yield process
    await process.stack.runtime.stop()
    await process.stack.projector.stop()


@pytest.mark.long
async def test_killed_gateways_lose_nothing(gateway: GatewayProcess) -> None:
    runtime = gateway.stack.runtime
    log = with_run(runtime, 10)
    options = {"khalaUrl": gateway.url, "topic": T, "tokens": [gateway.stack.token(T) for _ in range(50)]}
    async with following("follower", options) as client:
        for _ in range(KILLS):
            with gateway.running():
                await gateway.until(200)
                await client.until("caughtUp")
                runtime.append(T, 7)
                await client.until("event", seq=log.head - 2)
            runtime.append(T, 3)
        with gateway.running() as process:
            await gateway.until(200)
            await client.until("event", seq=log.head)
            process.send_signal(signal.SIGTERM)
            await client.until("connection", open=False)
            assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
            runtime.append(T, 3)
        with gateway.running():
            await client.until("event", seq=log.head)
    assert client.seqs == list(range(1, log.head + 1))
    assert [bytes.fromhex(line["payload"]) for line in client.lines if line["kind"] == "event"] == [
        payload(frame) for frame in log.frames
    ]
    assert not [line for line in client.lines if line["kind"] == "restarted"], "cursors are bound to the content"
    assert {len(request.after_chain) for request in runtime.replays if request.after_seq} >= {32}


async def test_what_the_fanout_loses_repeats_and_reorders_comes_once_and_in_order() -> None:
    runtime = FakeUpstream(Faults(lose=0.2, repeat=0.2, delay=0.3))
    async with running(Limits(), runtime) as stack:
        log = with_run(runtime, 10)
        options = {"khalaUrl": stack.url, "topic": T, "tokens": [stack.token(T)]}
        async with following("follower", options) as client:
            await client.until("caughtUp")
            for _ in range(50):
                runtime.append(T, 4)
                await asyncio.sleep(0.005)
            await client.until("event", seq=log.head)
            assert client.seqs == list(range(1, 211))
            client.tell("counts")
            counts = await client.until("counts")
            assert (counts["applied"], counts["unknown"]) == (210, 0)


async def test_a_client_that_slept_or_was_started_again_goes_on_at_its_cursor() -> None:
    async with running() as stack:
        log = with_run(stack.runtime, 10)
        options = {"khalaUrl": stack.url, "topic": T, "tokens": [stack.token(T) for _ in range(9)]}
        async with following("follower", options) as client:
            await client.until("caughtUp")
            client.tell("suspend")
            await client.until("connection", open=False)
            stack.runtime.append(T, 5)
            client.tell("resume")
            last = await client.until("event", seq=15)
            client.tell("close")
            assert await client.process.wait() == 0
        assert client.seqs == list(range(1, 16))
        stack.runtime.append(T, 5)
        async with following("follower", {**options, "tokens": [stack.token(T)], "cursor": last["cursor"]}) as again:
            await again.until("caughtUp", seq=log.head)
        assert again.seqs == list(range(16, 21))


async def test_another_content_starts_the_topic_over_and_a_refusal_ends_it() -> None:
    async with running() as stack:
        with_run(stack.runtime, 10)
        options = {"khalaUrl": stack.url, "topic": T, "tokens": [stack.token(T)]}
        async with following("follower", options) as client:
            await client.until("caughtUp")
            stack.runtime.restore(T, "e2", 3)
            await client.until("restarted", reason="epoch_mismatch")
            await client.until("event", seq=3)
            assert client.seqs == [*range(1, 11), 1, 2, 3]
        other = T.replace("V6X", "V6Y")
        async with following("follower", {**options, "topic": other, "tokens": [stack.token(other)]}) as client:
            refused = await client.until("refused")
            assert refused["reason"] == "not_found"


async def test_a_token_that_ends_is_replaced_while_the_topic_goes_on() -> None:
    async with running() as stack:
        log = with_run(stack.runtime, 10)
        lives_s = 2
        options = {"khalaUrl": stack.url, "topic": T, "tokens": [stack.token(T, ttl=lives_s), stack.token(T)]}
        async with following("follower", options) as client:
            await client.until("caughtUp")
            await asyncio.sleep(lives_s + 0.5)
            stack.runtime.append(T, 5)
            await client.until("event", seq=log.head)
        assert client.seqs == list(range(1, 16))
