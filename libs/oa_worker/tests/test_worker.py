"""The worker against an authority whose streams break: every event once, in order, or not ours any more."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from oa_base.refusal import Refusal
from oa_testing.logs import logged
from oa_testing.peers.forward_proxy import ForwardProxy
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S, eventually
from oa_worker import Adapter, Assignment, Emit, ExecAdapter, ExecLimits, Worker, WorkerLimits
from oa_worker.sdk.notices import Attached, Detached, Notice, RunLeft, RunTaken
from oa_worker.sdk.transport.connection import Attachment, attach
from oa_worker.tests.fake_runtime import OTHER_RUN, RUN, WORKER, FakeRuntime, FakeTokens, Faults
from oa_worker.tests.scripts import QUICK, SUCCEEDED, Patient, Script, message, numbers, scripted
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import Custom, EventBody, ExecSpec, RunFinished, RunSpec, TextDelta
from openagents.runtime.v1.worker_service_pb2 import AttachRequest, WorkerGoodbye, WorkerHeartbeat, WorkerHello

STDOUT, STDERR = event_pb2.TEXT_STREAM_STDOUT, event_pb2.TEXT_STREAM_STDERR
Worked = tuple[Worker, list[Notice]]


def text(data: bytes, stream: event_pb2.TextStream.ValueType = STDOUT) -> EventBody:
    return EventBody(text_delta=TextDelta(stream=stream, data=data))


@asynccontextmanager
async def working(
    runtime: FakeRuntime, *adapters: Adapter, limits: WorkerLimits = QUICK, tokens: FakeTokens | None = None
) -> AsyncIterator[Worked]:
    notices: list[Notice] = []
    worker = Worker("test", adapters, tokens or FakeTokens(runtime), slots=2, limits=limits, notify=notices.append)
    task = asyncio.create_task(worker.run())
    try:
        yield worker, notices
    finally:
        worker.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_run_is_executed_and_its_log_is_what_was_emitted() -> None:
    async with scripted().running() as runtime, working(runtime, Script()) as (worker, notices):
        await runtime.until(lambda: runtime.logs[RUN].finished)
        await runtime.until(lambda: "heartbeat" in runtime.said)
        await eventually(lambda: RunLeft(RUN, SUCCEEDED) in notices)
    assert numbers(runtime) == [str(number) for number in range(20)]
    assert runtime.logs[RUN].events[-1].run_finished == SUCCEEDED
    assert worker.worker_id == WORKER
    assert RunTaken(RUN, 1) in notices
    assert runtime.hellos[0].adapters == ["script"]
    assert runtime.tokens == ["Bearer token-1"]


async def test_lost_appends_and_lost_answers_store_everything_once() -> None:
    faults = Faults(drop_before={2, 5, 9}, drop_after={3, 6, 7, 12}, answer_twice=True)
    limits = WorkerLimits(flush_interval_ms=1, reconnect_min_ms=1, reconnect_max_ms=5, max_append_events=3)
    async with scripted(faults=faults).running() as runtime, working(runtime, Script(40), limits=limits):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert numbers(runtime) == [str(number) for number in range(40)]
    assert runtime.streams == 8
    assert [hello.worker_id for hello in runtime.hellos] == ["", *[WORKER] * 7]
    assert all([lease.run_id for lease in hello.held_leases] == [RUN] for hello in runtime.hellos[1:])


async def test_a_rate_limited_append_is_not_overtaken() -> None:
    slow_down = Refusal("publish_rate_limited", "too fast", retry_after_ms=30)
    faults = Faults(refuse={2: slow_down, 3: slow_down, 6: Refusal("overloaded", "full")})
    limits = WorkerLimits(flush_interval_ms=1, retry_min_ms=5, max_append_events=4)
    async with scripted(faults=faults).running() as runtime, working(runtime, Script(), limits=limits):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert numbers(runtime) == [str(number) for number in range(20)]


_FOR_NOW = ("unavailable", "overloaded", "draining", "internal", "publish_rate_limited", "append_out_of_order")


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_refused_or_cut_by_chance_the_order_is_that_of_emitting(seed: int) -> None:
    chance = random.Random(seed)
    troubled = chance.sample(range(1, 80), 50)
    faults = Faults(
        refuse={number: Refusal(chance.choice(_FOR_NOW), "not now", retry_after_ms=1) for number in troubled[:30]},
        drop_before=set(troubled[30:40]),
        drop_after=set(troubled[40:]),
    )
    limits = WorkerLimits(
        flush_interval_ms=1, reconnect_min_ms=1, reconnect_max_ms=5, retry_min_ms=1, max_append_events=3
    )
    async with (
        scripted(RUN, OTHER_RUN, faults=faults).running() as runtime,
        working(runtime, Script(60), limits=limits),
    ):
        await runtime.until(lambda: all(log.finished for log in runtime.logs.values()))
    for run_id in (RUN, OTHER_RUN):
        assert numbers(runtime, run_id) == [str(number) for number in range(60)]
    assert runtime.appends > 50


async def test_a_stale_epoch_stops_the_work_and_writes_nothing_more() -> None:
    adapter = Patient()
    async with scripted().running() as runtime, working(runtime, adapter) as (_, notices):
        await runtime.until(lambda: numbers(runtime) == ["0"])
        runtime.take_lease(RUN)
        await eventually(lambda: RunLeft(RUN, None) in notices)
    assert adapter.stopped == 1
    assert len(runtime.logs[RUN].events) == 1


async def test_a_lease_lost_unsaid_is_noticed_at_the_next_append() -> None:
    adapter = Script(count=10_000)
    async with scripted().running() as runtime, working(runtime, adapter) as (_, notices):
        await runtime.until(lambda: len(numbers(runtime)) > 3)
        runtime.take_lease(RUN, say=False)
        before = len(runtime.logs[RUN].events)
        await eventually(lambda: RunLeft(RUN, None) in notices)
    assert len(runtime.logs[RUN].events) == before


async def test_cancel_reaches_the_adapter_with_its_deadline() -> None:
    adapter = Patient()
    async with scripted().running() as runtime, working(runtime, adapter):
        await runtime.until(lambda: numbers(runtime) == ["0"])
        runtime.cancel(RUN, deadline_ms=7_000)
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.reason == "canceled"
    assert adapter.assignments[0].cancel.deadline_ms == 7_000


@pytest.mark.parametrize("reason", ["payload_too_large", "invalid_transition"])
async def test_an_event_refused_for_good_fails_the_run_with_the_reason(reason: str) -> None:
    faults = Faults(refuse={1: Refusal(reason, "no")})
    adapter = Script(count=10_000)
    async with scripted(faults=faults).running() as runtime, working(runtime, adapter):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    finish = runtime.logs[RUN].events[-1].run_finished
    assert (finish.outcome, finish.reason) == (event_pb2.RUN_OUTCOME_FAILED, reason)
    assert numbers(runtime) == []


class Deep(Script):
    """An adapter that emits what no authority could read."""

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        data = Struct()
        inner = data
        for _ in range(32):
            inner = inner.fields["a"].struct_value
        inner.fields["x"].number_value = 1
        await emit(message("0"))
        event = EventBody(custom=Custom(type="acme.deep", data=data))
        assert EventBody.FromString(event.SerializeToString()) == event, "by itself it can be read"
        await emit(event)
        return SUCCEEDED


async def test_an_event_that_nobody_could_read_fails_its_run_and_not_the_stream() -> None:
    async with scripted().running() as runtime, working(runtime, Deep()):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.reason == "invalid_value"
    assert (runtime.streams, numbers(runtime)) == (1, ["0"])


@pytest.mark.parametrize("defect", [KeyError("oops"), SystemExit("oops")])
async def test_a_defect_in_one_adapter_fails_its_run_only(defect: BaseException) -> None:
    class Broken(Script):
        name = "broken"

        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            raise defect

    runtime = FakeRuntime({RUN: RunSpec(adapter="broken"), OTHER_RUN: RunSpec(adapter="script")})
    async with runtime.running(), working(runtime, Broken(), Script(3)):
        await runtime.until(lambda: all(log.finished for log in runtime.logs.values()))
    assert runtime.logs[RUN].events[-1].run_finished.reason == "adapter_error"
    assert numbers(runtime, OTHER_RUN) == ["0", "1", "2"]


@pytest.mark.parametrize("ends", ["canceled by itself", "without a finish"])
async def test_an_adapter_that_ends_in_no_way_of_the_contract_fails_its_run(ends: str) -> None:
    """The run would otherwise be nobody's, and this worker's for as long as it lives."""

    class Odd(Script):
        name = "odd"

        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            if ends == "without a finish":
                return cast("RunFinished", "done")
            helper = asyncio.create_task(asyncio.sleep(3600))
            helper.cancel()
            await helper
            return SUCCEEDED

    runtime = FakeRuntime({RUN: RunSpec(adapter="odd"), OTHER_RUN: RunSpec(adapter="script")})
    async with runtime.running(), working(runtime, Odd(), Script(3)):
        await runtime.until(lambda: all(log.finished for log in runtime.logs.values()))
    assert runtime.logs[RUN].events[-1].run_finished.reason == "adapter_error"


async def test_whoever_only_watches_takes_no_run_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def broken(notice: Notice) -> None:
        raise LookupError(type(notice).__name__)

    async with scripted().running() as runtime:
        worker = Worker("test", [Script(3)], FakeTokens(runtime), limits=QUICK, notify=broken)
        serving = asyncio.create_task(worker.run())
        await runtime.until(lambda: runtime.logs[RUN].finished)
        worker.drain()
        await serving
    assert (numbers(runtime), runtime.streams) == (["0", "1", "2"], 1)
    told = {str(record.exc_info[1]) for record in logged(caplog, "oa_worker") if record.exc_info}
    assert told == {"Attached", "RunTaken", "RunLeft"}


async def test_what_holds_up_the_loop_is_named_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "held up" in record.getMessage():
                told.set()

    class Busy(Script):
        name = "busy"

        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            computes_for_long()
            return SUCCEEDED

    def computes_for_long() -> None:
        assert told.wait(PATIENCE_S), "nobody told of it"

    notes, log = Notes(), logging.getLogger("oa_worker")
    log.addHandler(notes)
    runtime = FakeRuntime({RUN: RunSpec(adapter="busy")})
    try:
        async with runtime.running(), working(runtime, Busy(), limits=replace(QUICK, blocked_after_ms=50)):
            await runtime.until(lambda: runtime.logs[RUN].finished)
            await eventually(lambda: "goes on after" in caplog.text)
    finally:
        log.removeHandler(notes)
    assert "in computes_for_long" in caplog.text


async def test_an_adapter_that_is_not_here_fails_the_run() -> None:
    runtime = FakeRuntime({RUN: RunSpec(adapter="teleport")})
    async with runtime.running(), working(runtime, Script()):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.reason == "adapter_not_available"


async def test_events_keep_the_authoritys_pace() -> None:
    runtime = scripted(per_second=100)
    async with runtime.running(), working(runtime, Script(120)):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await runtime.until(lambda: runtime.logs[RUN].finished)
        took_s = loop.time() - began
    # A burst of 10, then 90 a second: 121 events take at least (121 - 10) / 90 s.
    assert took_s >= 1.2
    assert max(runtime.append_sizes) <= 10


async def test_fine_grained_text_becomes_few_events_and_keeps_its_bytes() -> None:
    class Chatty(Script):
        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            for number in range(3_000):
                err = number % 2
                await emit(
                    text(b"o%d\n" % number, event_pb2.TEXT_STREAM_STDERR if err else event_pb2.TEXT_STREAM_STDOUT)
                )
                if number % 100 == 0:
                    await asyncio.sleep(0.001)
            return SUCCEEDED

    runtime = scripted()
    async with runtime.running(), working(runtime, Chatty(), limits=replace(QUICK, flush_interval_ms=1_000)):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    events = runtime.logs[RUN].events
    assert len(events) < 300
    for stream, odd in ((STDOUT, 0), (STDERR, 1)):
        data = b"".join(event.text_delta.data for event in events if event.text_delta.stream == stream)
        assert data == b"".join(b"o%d\n" % number for number in range(odd, 3_000, 2))


async def test_no_event_is_larger_than_the_authority_takes() -> None:
    class Big(Script):
        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            await emit(text(b"x" * 100_000))
            return SUCCEEDED

    runtime = scripted()
    runtime.max_event_bytes = 4_096
    async with runtime.running(), working(runtime, Big()):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].text == b"x" * 100_000
    assert max(event.ByteSize() for event in runtime.logs[RUN].events) <= 4_096


async def test_emit_waits_while_appends_are_slow() -> None:
    emitted = 0

    class Firehose(Script):
        async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
            nonlocal emitted
            for _ in range(100):
                await emit(text(b"x" * 10_000))
                emitted += 10_000
            return SUCCEEDED

    limits = WorkerLimits(flush_interval_ms=1, max_buffered_bytes=50_000, max_append_bytes=40_000)
    runtime = scripted(faults=Faults(append_delay_s=0.05))
    async with runtime.running(), working(runtime, Firehose(), limits=limits):
        await runtime.until(lambda: runtime.appends == 2)
        stored = len(runtime.logs[RUN].text)
        assert emitted - stored <= 50_000 + 2 * 64 * 1024
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert len(runtime.logs[RUN].text) == 1_000_000


async def test_a_token_is_replaced_before_it_expires() -> None:
    runtime = scripted()
    tokens = FakeTokens(runtime, lifetime_s=0.2)
    async with runtime.running(), working(runtime, Patient(), tokens=tokens) as (_, notices):
        await runtime.until(lambda: runtime.streams >= 3)
        assert runtime.tokens[:3] == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    assert not any(isinstance(notice, Detached) for notice in notices)
    assert numbers(runtime) == ["0"]


async def test_where_that_is_taken_the_stream_goes_on_under_the_next_token() -> None:
    runtime = scripted()
    runtime.takes_renewals = True
    tokens = FakeTokens(runtime, lifetime_s=0.2)
    async with runtime.running(), working(runtime, Patient(), tokens=tokens):
        await runtime.until(lambda: len(runtime.renewals) >= 3)
        assert runtime.renewals[:3] == ["token-2", "token-3", "token-4"]
        assert (runtime.streams, runtime.tokens) == (1, ["Bearer token-1"])
        tokens.elsewhere = True
        await runtime.until(lambda: runtime.streams == 2)


async def test_a_draining_replica_is_left_and_found_again() -> None:
    async with scripted().running() as runtime, working(runtime, Patient()):
        await runtime.until(lambda: numbers(runtime) == ["0"])
        runtime.announce_drain()
        await runtime.until(lambda: runtime.streams == 2)
        runtime.cancel(RUN)
        await runtime.until(lambda: runtime.logs[RUN].finished)


async def test_a_worker_ends_while_it_leaves_a_draining_replica() -> None:
    runtime = scripted()
    runtime.answers_half_closes = False
    async with runtime.running():
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK)
        working = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        runtime.announce_drain()
        await runtime.until(lambda: runtime.half_closes == 1)
        working.cancel()
        await asyncio.wait([working], timeout=PATIENCE_S)
        assert working.cancelled()


async def test_nothing_is_said_after_goodbye() -> None:
    runtime = scripted()
    hello = WorkerHello(name="test", adapters=["script"], max_concurrent_runs=1)
    async with runtime.running(), grpc.aio.insecure_channel(runtime.address) as channel:
        attachment = await attach(channel, "token", hello, timeout_s=PATIENCE_S)

        async def beat() -> None:
            attachment.send(AttachRequest(heartbeat=WorkerHeartbeat()))

        async def leave() -> None:
            attachment.send(AttachRequest(goodbye=WorkerGoodbye()))
            await attachment.close()

        await asyncio.gather(leave(), beat())  # both before the stream's writer has its turn
    assert runtime.said == ["goodbye"]


async def test_the_end_of_the_stream_is_no_news_after_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Attachment.close

    notices: list[Notice] = []

    def detached() -> bool:
        return any(isinstance(notice, Detached) for notice in notices)

    async def close_slowly(attachment: Attachment) -> None:
        [serving] = (task for task in asyncio.all_tasks() if "Worker._serve" in repr(task))
        await close(attachment)
        await eventually(lambda: serving.done() or detached())  # whoever reads the stream sees its end, too

    monkeypatch.setattr(Attachment, "close", close_slowly)
    async with scripted().running() as runtime:
        worker = Worker("test", [Script(1)], FakeTokens(runtime), limits=QUICK, notify=notices.append)
        working = asyncio.create_task(worker.run())
        await runtime.until(lambda: runtime.logs[RUN].finished)
        worker.drain()
        await working
    assert not detached()


async def test_a_worker_that_was_forgotten_comes_back_as_a_new_one() -> None:
    faults = Faults(drop_after={1})
    async with scripted(faults=faults).running() as runtime:
        faults.attach = []
        async with working(runtime, Patient()) as (worker, _):
            await runtime.until(lambda: runtime.streams == 1)
            faults.attach.append(Refusal("worker_lost", "who?"))
            await runtime.until(lambda: runtime.streams == 2)
            assert worker.worker_id == WORKER
    assert [hello.worker_id for hello in runtime.hellos] == ["", ""]


async def test_an_authority_that_is_away_is_waited_for() -> None:
    runtime = scripted()
    tokens = FakeTokens(runtime, failures=[Refusal("unavailable", "starting")] * 3)
    async with runtime.running(), working(runtime, Script(3), tokens=tokens) as (_, notices):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert [notice.refusal.reason for notice in notices if isinstance(notice, Detached)] == ["unavailable"] * 3


@pytest.mark.parametrize("reason", ["invalid_api_key", "missing_scope"])
async def test_a_key_that_is_refused_ends_the_worker(reason: str) -> None:
    runtime = scripted()
    worker = Worker("test", [Script()], FakeTokens(runtime, failures=[Refusal(reason, "no")]), limits=QUICK)
    with pytest.raises(Refusal) as caught:
        await worker.run()
    assert caught.value.reason == reason


async def test_fresh_tokens_that_are_refused_again_and_again_end_the_worker() -> None:
    refused = Refusal("invalid_token", "no")
    async with scripted(faults=Faults(attach=[refused] * 3)).running() as runtime:
        tokens = FakeTokens(runtime)
        with pytest.raises(Refusal) as caught:
            await Worker("test", [Script()], tokens, limits=QUICK).run()
    assert caught.value.reason == "invalid_token"
    assert tokens.given == 3


@pytest.mark.parametrize("reason", ["clock_skew", "token_expired", "token_too_old"])
async def test_no_clock_ends_a_worker_however_long_it_is_wrong(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    # A token that control has just made has not expired: a clock is wrong somewhere, and clocks are mended.
    refused = Refusal(reason, "The clock of runtime is 30000 ms behind that of control.")
    tries = QUICK.max_rejected_tokens * 3
    runtime = scripted(faults=Faults(attach=[refused] * tries))
    async with runtime.running(), working(runtime, Script(3)) as (_, notices):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert [notice.refusal.reason for notice in notices if isinstance(notice, Detached)] == [reason] * tries
    assert caplog.text.count("The clock of runtime is 30000 ms behind") == tries


async def test_drain_finishes_what_is_at_hand_and_says_goodbye() -> None:
    async with scripted().running() as runtime:
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK)
        task = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        worker.drain()
        await runtime.until(lambda: "drain" in runtime.said)
        assert not task.done()
        runtime.cancel(RUN)
        async with asyncio.timeout(PATIENCE_S):
            await task
    assert runtime.logs[RUN].finished
    assert runtime.said[-1] == "goodbye"


async def test_a_drain_that_takes_too_long_gives_its_runs_up() -> None:
    adapter = Patient()
    limits = WorkerLimits(flush_interval_ms=1, drain_timeout_ms=100)
    async with scripted().running() as runtime:
        worker = Worker("test", [adapter], FakeTokens(runtime), limits=limits)
        task = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        worker.drain()
        async with asyncio.timeout(PATIENCE_S):
            await task
    assert adapter.stopped == 1
    assert not runtime.logs[RUN].finished
    assert runtime.said[-1] == "goodbye"


async def test_a_real_command_over_a_stream_that_breaks() -> None:
    code = "import sys\nfor n in range(20000): print(n)\nprint('done', file=sys.stderr)\nsys.exit(3)"
    spec = RunSpec(adapter="exec", exec=ExecSpec(argv=[sys.executable, "-c", code]))
    faults = Faults(drop_before={1, 4}, drop_after={2, 6}, answer_twice=True)
    runtime = FakeRuntime({RUN: spec}, faults, 1_000)
    adapter = ExecAdapter(ExecLimits(leftover_grace_ms=100))
    async with runtime.running(), working(runtime, adapter):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    log = runtime.logs[RUN]
    out = b"".join(
        each.text_delta.data for each in log.events if each.text_delta.stream == event_pb2.TEXT_STREAM_STDOUT
    )
    assert out == b"".join(b"%d\n" % number for number in range(20_000))
    finish = log.events[-1].run_finished
    assert (finish.reason, finish.exec.exit_code) == ("nonzero_exit", 3)
    assert (finish.exec.stdout_bytes, finish.exec.stderr_bytes) == (len(out), 5)


async def _noticed(notices: list[Notice], kind: type[Notice], times: int = 1) -> None:
    await eventually(lambda: sum(isinstance(notice, kind) for notice in notices) >= times)


async def test_a_connection_that_falls_silent_is_given_up_and_made_anew(fault_proxies: FaultProxies) -> None:
    limits = replace(QUICK, keepalive_interval_ms=1000, keepalive_timeout_ms=300)
    async with scripted().running() as runtime:
        proxy = await fault_proxies("127.0.0.1", int(runtime.address.rpartition(":")[2]))
        runtime.address = f"127.0.0.1:{proxy.port}"
        async with working(runtime, Patient(), limits=limits) as (_, notices):
            await _noticed(notices, Attached)
            proxy.stall()
            await _noticed(notices, Detached)
            proxy.resume()
            await _noticed(notices, Attached, times=2)


async def test_the_runtime_is_reached_past_proxies_of_the_environment(dead_proxies: dict[str, str]) -> None:
    async with scripted().running() as runtime:
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK, proxy="http://127.0.0.1:9")
        task = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_runtime_elsewhere_is_reached_through_the_proxy_that_was_set(dead_proxies: dict[str, str]) -> None:
    async with ForwardProxy().running() as proxy, scripted().running() as runtime:
        runtime.address = runtime.address.replace("127.0.0.1", "runtime.example")
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK, proxy=proxy.url)
        task = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert f"CONNECT {runtime.address}" in proxy.asked


async def test_a_proxy_that_is_away_is_named() -> None:
    said: list[Notice] = []
    async with scripted().running() as runtime:
        runtime.address = "runtime.example:9081"
        proxy = "http://user:secret@127.0.0.1:9"
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK, proxy=proxy, notify=said.append)
        task = asyncio.create_task(worker.run())
        await eventually(lambda: bool(said))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert isinstance(said[0], Detached)
    assert "runtime.example:9081 through the proxy http://127.0.0.1:9:" in said[0].refusal.message
    assert "secret" not in said[0].refusal.message
