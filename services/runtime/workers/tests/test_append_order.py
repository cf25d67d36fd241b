"""Pipelined appends on real replicas: what is refused for now is not overtaken, whoever refused it, whatever breaks."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Secret
from oa_runlog.authority.commands import Append
from oa_runlog.events import Message, MessageRole
from oa_runlog.workers import WorkerStatus
from oa_testing.metrics import value_of
from oa_testing.peers.fault_proxy import FaultProxy
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from openagents.runtime.v1 import event_pb2, worker_service_pb2
from services.runtime.config import SequencerSettings
from services.runtime.log.domain.pipeline import Place
from services.runtime.log.metrics import COMMANDS
from services.runtime.tests.rig import (
    QUICK_RUNS,
    QUICK_WORKERS,
    FakeWorker,
    Replica,
    Somebody,
    replica,
    runtime_settings,
    somebody,
    text,
)
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import WorkerRecord

PATIENT = replace(QUICK_WORKERS, lost_after_ms=120_000, quiet_after_ms=60_000)
FAST = replace(QUICK_RUNS, events_per_second=1_000_000, burst_events=1_000_000)
WINDOW = 8
ENOUGH = 12
"""Refusals for now after which nothing new is sent."""


async def leased(runtime: Replica, who: Somebody) -> tuple[FakeWorker, str]:
    """An attached worker, and a run that it holds with epoch 1."""
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run = await runtime.create(who)
    assert (await worker.next("assignment")).assignment.lease_epoch == 1
    return worker, str(run.run_id)


def request(run_id: str, number: int, *bodies: event_pb2.EventBody) -> worker_service_pb2.AttachRequest:
    """Append `number` of a run, under the key k{number}."""
    append = worker_service_pb2.AppendEventsRequest(
        request_id=number,
        run_id=run_id,
        lease_epoch=1,
        idempotency_key=f"k{number}",
        events=bodies or [text(f"{number} ".encode())],
    )
    return worker_service_pb2.AttachRequest(append=append)


async def answers_of(worker: FakeWorker, count: int) -> list[str]:
    """The next answers: a reason, or "" for what was stored."""
    messages: list[Any] = [await worker.call.read() for _ in range(count)]
    return [answer.append_refused.reason if answer.HasField("append_refused") else "" for answer in messages]


async def text_of(database: Database, run_id: str) -> list[int]:
    """The numbers in the run's log, in its order."""
    admin = await asyncpg.connect(database.admin)
    rows = await admin.fetch("SELECT body FROM runtime.events WHERE run_id = $1 ORDER BY seq", run_id)
    await admin.close()
    events = [event_pb2.RunEvent.FromString(row["body"]) for row in rows]
    return [int(event.body.text_delta.data) for event in events if event.body.HasField("text_delta")]


async def test_a_small_append_does_not_overtake_one_that_came_too_fast(runtime_database: Database) -> None:
    who = somebody()
    runs = replace(QUICK_RUNS, events_per_second=1, burst_events=500)
    async with replica(runtime_settings(runtime_database, runs=runs, workers=PATIENT), who.key) as runtime:
        worker, run_id = await leased(runtime, who)
        for number, size in ((1, 400), (2, 300), (3, 1)):
            await worker.write(request(run_id, number, *[text(b"%d" % number)] * size))
        assert await answers_of(worker, 2) == ["", "publish_rate_limited"]
        refused = (await worker.next("append_refused")).append_refused
        assert (refused.reason, dict(refused.metadata)) == ("append_out_of_order", {"resend_from": "k2"})
        assert refused.retry_after_ms > 0
        # Whoever leaves it out on purpose says so with a new stream: there it has no predecessor.
        await worker.leave()
        again = FakeWorker(runtime, who, worker.worker_id)
        await again.attach(worker_service_pb2.HeldLease(run_id=run_id, lease_epoch=1))
        await again.write(request(run_id, 3))
        assert await answers_of(again, 1) == [""]


async def test_what_comes_after_a_full_queue_does_not_overtake_what_found_it_full(runtime_database: Database) -> None:
    who = somebody()
    settings = runtime_settings(runtime_database, workers=PATIENT, sequencer=SequencerSettings(queue_commands=2))
    overloaded = COMMANDS.labels("Append", "overloaded")
    before = value_of(overloaded)
    async with replica(settings, who.key) as runtime:
        worker, run_id = await leased(runtime, who)
        blocker = await asyncpg.connect(runtime_database.admin)
        block = blocker.transaction()
        await block.start()
        await blocker.execute("SELECT FROM runtime.log_heads FOR UPDATE")
        for number in range(1, 11):
            await worker.write(request(run_id, number))
        async with asyncio.timeout(60):
            while value_of(overloaded) == before:
                await asyncio.sleep(0.02)
        await block.rollback()
        await blocker.close()
        answers = await answers_of(worker, 10)
        stored = answers.index("overloaded")
        assert answers[:stored] == [""] * stored
        assert set(answers[stored:]) <= {"overloaded", "append_out_of_order"}
        await worker.write(request(run_id, 11))
        assert await answers_of(worker, 1) == ["append_out_of_order"], "the queue has room, and it is not its turn"
        for number in range(stored + 1, 12):
            await worker.write(request(run_id, number))
            assert await answers_of(worker, 1) == [""]
    assert await text_of(runtime_database, run_id) == list(range(1, 12))


def test_a_new_lease_waits_for_nothing_of_the_old_one() -> None:
    """The old execution is over, and what it was refused never comes again. What is under no lease has no order."""
    worker = WorkerRecord("wrk_1", "sva_1", "org_1", "n", ("exec",), 1, WorkerStatus.RUNNING)
    attachment = Attachment(worker, "att_1", 0.0, 8)

    def place(epoch: int, key: str) -> Place | None:
        return attachment.place_of(Append.of("run_1", "org_1", "wrk_1", epoch, key, [Message(MessageRole.USER)]))

    assert place(1, "early") is None
    attachment.hold("run_1", 1)
    refused = place(1, "a")
    assert refused is not None
    refused.pipeline.answered(refused, Refusal("unavailable", "away"))
    attachment.hold("run_1", 1)
    behind = place(1, "b")
    assert behind is not None
    assert behind.pipeline.awaited(behind) == "a"
    attachment.hold("run_1", 2)
    anew = place(2, "c")
    assert anew is not None
    assert anew.pipeline.awaited(anew) == ""
    assert place(1, "b") is None


# ------------------------------------------------------------------------------------------------- by chance


@dataclass
class Pipelining:
    """A worker that follows the rule: everything in order, and again from the first one that is not done."""

    replicas: Sequence[Replica]
    who: Somebody
    worker_id: str
    run_id: str
    chance: random.Random
    done: int = 0
    """Appends up to this one are stored."""
    sent: int = 0
    """Appends up to this one were sent, once at least."""
    refusals: int = 0
    streams: int = 0
    out_of_order: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.refusals >= ENOUGH and self.done == self.sent

    def may_send(self, number: int) -> bool:
        return number <= self.sent or self.refusals < ENOUGH

    async def work(self) -> None:
        while not self.is_over:
            try:
                await self._stream(self.chance.choice(self.replicas))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, Refusal, ConnectionResetError):
                await asyncio.sleep(0.02)

    async def _stream(self, runtime: Replica) -> None:
        worker = FakeWorker(runtime, self.who, self.worker_id)
        self.streams += 1
        try:
            await worker.attach(worker_service_pb2.HeldLease(run_id=self.run_id, lease_epoch=1))
            while not self.is_over:
                await self._go(worker)
                await asyncio.sleep(0.02)
        finally:
            worker.call.cancel()

    async def _go(self, worker: FakeWorker) -> None:
        """From the first that is not done, until one is refused and all that were on their way are answered."""
        under_way: deque[int] = deque()
        following = self.done + 1
        refused = False
        while under_way or (not refused and self.may_send(following)):
            while not refused and self.may_send(following) and len(under_way) < WINDOW:
                self.sent = max(self.sent, following)
                await worker.write(request(self.run_id, following))
                under_way.append(following)
                following += 1
            refused |= not self._settle(under_way, await self._read(worker))

    async def _read(self, worker: FakeWorker) -> Any:
        message: Any
        async with asyncio.timeout(60):
            while (message := await worker.call.read()) is not grpc.aio.EOF:
                if message.WhichOneof("message") in ("appended", "append_refused"):
                    return message
        raise ConnectionResetError("the stream is over")

    def _settle(self, under_way: deque[int], message: Any) -> bool:
        """Whether it was stored."""
        is_stored = bool(message.HasField("appended"))
        answer = message.appended if is_stored else message.append_refused
        under_way.remove(answer.request_id)
        if not is_stored:
            self.refusals += 1
            return False
        if answer.request_id == self.done + 1:
            self.done += 1
        elif not answer.already_appended:  # what a lost answer had stored is found by its key, whatever waits
            self.out_of_order.append(f"{answer.request_id} was stored, and only {self.done} before it")
        return True


async def _trouble(proxies: Sequence[FaultProxy], chance: random.Random, sender: Pipelining) -> None:
    """Each time after something was answered: on a slow machine nothing else than connecting would be cut off."""
    while True:
        answered = sender.done, sender.refusals
        while (sender.done, sender.refusals) == answered:
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.random() * 0.15)
        proxy = chance.choice(proxies)
        if chance.random() < 0.5:
            proxy.refuse()
            await proxy.cut()
            await asyncio.sleep(chance.random() * 0.1)
            proxy.refuse(False)
        else:
            await proxy.cut()


@pytest.mark.parametrize("seed", range(3))
async def test_the_log_is_in_the_order_of_sending_while_the_database_comes_and_goes(
    runtime_database: Database, fault_proxies: FaultProxies, seed: int
) -> None:
    """Two replicas, each with its own way to the database, which is cut again and again."""
    who, chance = somebody(), random.Random(seed)
    async with AsyncExitStack() as stack:
        proxies, replicas = [], []
        for _ in range(2):
            proxy = await fault_proxies("127.0.0.1", runtime_database.port)
            settings = runtime_settings(runtime_database, workers=PATIENT, runs=FAST)
            url = runtime_database.runtime.replace(f":{runtime_database.port}/", f":{proxy.port}/")
            settings = replace(settings, database=replace(settings.database, url=Secret(url)))
            proxies.append(proxy)
            replicas.append(await stack.enter_async_context(replica(settings, who.key)))
        worker, run_id = await leased(replicas[0], who)
        sender = Pipelining(replicas, who, worker.worker_id, run_id, chance)
        trouble = asyncio.create_task(_trouble(proxies, chance, sender))
        try:
            await sender.work()
        finally:
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            for proxy in proxies:
                proxy.refuse(False)
        worker.call.cancel()
    assert sender.out_of_order == []
    assert await text_of(runtime_database, run_id) == list(range(1, sender.sent + 1))
