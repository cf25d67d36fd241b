"""The tail against a real gRPC server that cuts, repeats, leaves out and lies, with the real database behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.health.quarantine import Quarantine
from oa_platform.postgres.pool import Postgres
from oa_runlog import events as e
from oa_runlog.wire import decode_event, encode_event
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from oa_wire.status import STATUS_METADATA_KEY, to_status, wire_message
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1 import log_service_pb2 as pb
from services.projector.projection.app import Applied, CheckpointMoved, Tail
from services.projector.projection.domain import Checkpoint, LogBatch
from services.projector.projection.door import GrpcLogSource
from services.projector.projection.limits import TailLimits
from services.projector.set_aside.app import Retries
from services.projector.set_aside.limits import SetAsideLimits
from services.projector.summaries import app as summaries_app
from services.projector.summaries.store import PostgresSummaryWriter
from services.projector.tests import histories as h
from services.projector.tests.fake_log import EPOCH, PARTITIONS, FakeLog, serving, some_runs, spread
from services.projector.tests.rig import QUICK, Rig, check_everything_once, running, until


async def test_catches_up_then_follows(rig: Rig) -> None:
    runs = some_runs()
    log = FakeLog(spread(runs[:30]))
    async with serving(log) as channel, running(rig.tail(channel)):
        assert rig.progress.not_ready_because
        await until(lambda: rig.progress.caught_up_once)
        assert rig.progress.not_ready_because == ""
        await check_everything_once(rig, runs[:30])
        for number, run in enumerate(runs[30:], start=30):
            await log.append(number % PARTITIONS, run)
        await until(lambda: sum(rig.progress.applied.values()) == sum(len(run) for run in runs))
        assert all(rig.progress.lag(partition) == 0 for partition in range(PARTITIONS))
    await check_everything_once(rig, runs)


async def test_a_stream_that_is_cut_again_and_again_goes_on_from_the_checkpoint(rig: Rig) -> None:
    runs = some_runs()
    log = FakeLog(spread(runs), page=2, meddle=lambda number, message: None if number == 3 else message)
    async with serving(log) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
    assert len(log.requests) > 3
    for before, after in zip(log.requests, log.requests[1:], strict=False):
        assert all(after[partition] >= before[partition] for partition in before)
    assert rig.progress.reconnects["unavailable"] == len(log.requests) - 1
    await check_everything_once(rig, runs)


async def test_entries_that_come_twice_are_applied_once(rig: Rig) -> None:
    """What runtime never does, and a retrying network in between might."""
    runs = some_runs()
    kept: dict[int, pb.TailLogResponse] = {}

    def repeat(_: int, message: pb.TailLogResponse) -> pb.TailLogResponse:
        before = kept.get(message.partition)
        kept[message.partition] = message
        if before is None:
            return message
        both = [*before.events, *message.events]
        return pb.TailLogResponse(
            epoch=message.epoch, partition=message.partition, first_position=before.first_position, events=both
        )

    async with serving(FakeLog(spread(runs), meddle=repeat)) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
    await check_everything_once(rig, runs)


@pytest.mark.parametrize("where", [0, 3])
async def test_a_hole_stops_the_projection_and_is_never_stepped_over(rig: Rig, where: int) -> None:
    runs = some_runs(4)
    length = len(spread(runs)[2])

    def hole(_: int, message: pb.TailLogResponse) -> pb.TailLogResponse:
        if message.partition != 2 or message.first_position < where + 1:
            return message
        return pb.TailLogResponse(
            epoch=EPOCH, partition=2, first_position=message.first_position + 1, events=message.events[1:]
        )

    async with serving(FakeLog(spread(runs), page=3, meddle=hole)) as channel, running(rig.tail(channel)) as task:
        await asyncio.wait_for(task, PATIENCE_S)
    assert length > where + 1
    assert rig.progress.halted == "hole"
    assert "the projection has stopped (hole)" in rig.progress.not_ready_because
    assert (await rig.checkpoint(2)).position == where


async def test_another_epoch_is_refused(rig: Rig) -> None:
    runs = some_runs(4)
    async with serving(FakeLog(spread(runs))) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
    applied = (await rig.checkpoint(0)).position
    async with serving(FakeLog(spread(runs[:1]), epoch="restored")) as channel, running(rig.tail(channel)) as task:
        await asyncio.wait_for(task, PATIENCE_S)
    assert rig.progress.halted == "epoch_changed"
    assert rig.progress.not_ready_because == ""  # what was applied before is good to read
    assert (await rig.checkpoint(0)).position == applied


async def test_an_epoch_that_changes_under_an_open_stream_is_refused(rig: Rig) -> None:
    log = FakeLog(spread(some_runs(4)))
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        await until(lambda: rig.progress.caught_up_once)
        log.epoch = "restored"
        await asyncio.wait_for(task, PATIENCE_S)
    assert rig.progress.halted == "epoch_changed"


async def test_a_log_that_lost_its_end_is_refused(rig: Rig) -> None:
    log = FakeLog(spread(some_runs(8)))
    async with serving(log) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
    log.partitions[1].pop()
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        await asyncio.wait_for(task, PATIENCE_S)
    assert rig.progress.halted == "rewound"


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_read_model_that_was_emptied_is_refused(
    rig: Rig, projector_database: Database, is_restarted: bool
) -> None:
    """Somebody truncated it: lists would be empty, as if there had never been a run."""
    log = FakeLog(spread(some_runs(4)))
    owner = await asyncpg.connect(projector_database.owner)
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        await until(lambda: rig.progress.caught_up_once)
        if not is_restarted:
            await owner.execute("TRUNCATE projection.run_summaries")
            await asyncio.wait_for(task, PATIENCE_S)
    if is_restarted:
        await owner.execute("TRUNCATE projection.run_summaries")
        async with serving(log) as channel, running(rig.tail(channel)) as task:
            await asyncio.wait_for(task, PATIENCE_S)
    await owner.close()
    assert rig.progress.halted == "emptied"


class DamagedLog(FakeLog):
    """What it has to say of what follows on the first entries: their archive is damaged, or this replica has none."""

    refusal: Refusal | None

    async def TailLog(self, request: pb.TailLogRequest, context: Any) -> AsyncIterator[pb.TailLogResponse]:
        async for message in super().TailLog(request, context):
            if self.refusal is not None and message.first_position > 3:
                trailers = ((STATUS_METADATA_KEY, to_status(self.refusal).SerializeToString()),)
                code = grpc.StatusCode[self.refusal.info.grpc_code]
                await context.abort(code, wire_message(self.refusal), trailers)
            yield message


@pytest.mark.parametrize("reason", ["archive_damaged", "unavailable"])
async def test_entries_that_can_not_be_read_now_are_waited_for_and_never_stepped_over(rig: Rig, reason: str) -> None:
    """It says why it waits, and goes on by itself once somebody has put the object back."""
    runs = some_runs(8)
    log = DamagedLog(spread(runs), page=3)
    log.refusal = Refusal(reason, "the archived object of the run is missing")
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        await until(lambda: rig.progress.reconnects.get(reason, 0) > 2)
        assert not task.done()
        assert rig.progress.halted == ""
        await until(lambda: not rig.progress.connected)
        assert f"{reason}: the archived object of the run is missing" in rig.progress.not_ready_because
        assert (await rig.checkpoint(0)).position in {0, 3}
        log.refusal = None
        await until(lambda: rig.progress.caught_up_once)
    await check_everything_once(rig, runs)


async def test_a_defect_that_every_run_meets_holds_its_partition_back_once_the_limit_is_reached(rig: Rig) -> None:
    """Two runs are set aside (`max_runs`); then the partition is tried again and again, while others are followed."""
    runs = some_runs(16)
    log = FakeLog(spread(runs), page=3)
    apply, is_defective = rig.projection.apply, True

    async def defective(checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        if is_defective and batch.partition == 0:
            raise KeyError("a defect")
        return await apply(checkpoint, batch)

    rig.projection.apply = defective  # type: ignore[method-assign]
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        others = {number: len(entries) for number, entries in log.partitions.items() if number != 0}
        await until(lambda: rig.progress.reconnects.get("internal", 0) > 2)
        await until(lambda: {number: rig.progress.applied.get(number) for number in others} == others)
        assert (task.done(), rig.progress.halted) == (False, "")
        assert len(await rig.waiting.runs([], 10)) == 2
        is_defective = False
        await until(lambda: rig.progress.caught_up_once)
        await rig.retries.look()
    await check_everything_once(rig, runs)


async def test_a_defect_lets_the_other_partitions_end_what_they_apply(rig: Rig) -> None:
    """Applying anything takes longer than the pause before the next session."""
    runs = some_runs(8)
    log = FakeLog(spread(runs), page=3)
    apply, is_defective = rig.projection.apply, True

    async def slow(checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        if is_defective and batch.partition == 0:
            raise KeyError("a defect")
        await asyncio.sleep(3 * QUICK.backoff_max_ms / 1000)
        return await apply(checkpoint, batch)

    async def refused(checkpoint: Checkpoint, batch: LogBatch, error: Exception) -> Applied:
        raise error

    rig.projection.apply, rig.projection.set_aside = slow, refused  # type: ignore[method-assign]
    async with serving(log) as channel, running(rig.tail(channel)):
        others = {number: len(entries) for number, entries in log.partitions.items() if number != 0}
        await until(lambda: {number: rig.progress.applied.get(number) for number in others} == others)
        assert rig.progress.reconnects["internal"] > 0
        is_defective = False
        await until(lambda: rig.progress.caught_up_once)
    await check_everything_once(rig, runs)


async def test_a_run_that_can_not_be_applied_waits_in_order_while_others_go_on(rig: Rig) -> None:
    runs = some_runs(12)
    damaged, late = runs[4][0].run_id, runs[4][-2:]
    log = FakeLog(spread([*runs[:4], runs[4][:-2], *runs[5:]]), page=7)
    rig.break_run(damaged)
    with capture_logs() as lines:
        async with serving(log) as channel, running(rig.tail(channel)):
            await until(lambda: rig.progress.caught_up_once)
            await log.append(0, late[:1])
            await log.append(0, late[1:])
            await until(lambda: rig.progress.applied[0] == len(log.partitions[0]))
            await rig.retries.look()
    assert rig.progress.reconnects == {}
    assert {(line["task"], line["run_id"]) for line in lines if line["event"] == "quarantined"} == {
        ("projection", damaged)
    }
    assert await rig.summaries.summary(damaged) is None
    await check_everything_once(rig, runs[:4] + runs[5:])
    assert [run.run_id for run in await rig.waiting.runs([], 10)] == [damaged]

    rig.mend_run()
    again = Rig(rig.postgres)  # a process that starts anew tries it at once
    await asyncio.gather(again.retries.look(), rig.retries.look())
    await check_everything_once(rig, runs)
    assert await rig.waiting.runs([], 10) == []


async def test_entries_that_arrive_while_a_run_catches_up_come_after_those_that_waited(rig: Rig) -> None:
    """The run catches up in pages of three entries; the partition moves on between them."""
    run = h.whole_run(1, deltas=12)
    checkpoint = await rig.checkpoint()
    rig.break_run(run[0].run_id)
    batch = h.batch(0, 1, run[:1])
    checkpoint = (await rig.projection.set_aside(checkpoint, batch, ValueError("a defect"))).checkpoint
    checkpoint = await rig.apply(checkpoint, run[1:10])
    rig.mend_run()
    waiting = (await rig.waiting.runs([], 10))[0]

    async def go_on() -> None:
        nonlocal checkpoint
        for event in run[10:]:
            checkpoint = await rig.apply(checkpoint, [event])

    await asyncio.gather(rig.projection.catch_up(waiting), go_on())
    await rig.projection.catch_up(waiting)
    await check_everything_once(rig, [run])


async def test_the_only_run_that_catches_up_while_it_is_asked_for_is_no_emptied_read_model(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer set aside, and not yet among the summaries, for whoever asks for them in the wrong order."""
    run, is_empty = h.whole_run(1), PostgresSummaryWriter.is_empty
    batch = h.batch(0, 1, run[:1])
    checkpoint = await rig.checkpoint()
    await rig.projection.set_aside(checkpoint, batch, ValueError("a defect"))
    (waiting,) = await rig.waiting.runs([], 10)

    async def slowly(writer: PostgresSummaryWriter) -> bool:
        found = await is_empty(writer)
        await rig.projection.catch_up(waiting)
        return found

    monkeypatch.setattr(PostgresSummaryWriter, "is_empty", slowly)
    assert not await rig.projection.is_empty()


async def test_runs_that_are_set_aside_are_tried_though_no_more_may_be(rig: Rig) -> None:
    """Somebody has set OA_PROJECTOR_SET_ASIDE_RUNS to 0 since. A look tries so many of them."""
    checkpoint = await rig.checkpoint()
    for position, run in enumerate((h.whole_run(1), h.whole_run(2)), start=1):
        batch = h.batch(0, position, run[:1])
        checkpoint = (await rig.projection.set_aside(checkpoint, batch, ValueError("a defect"))).checkpoint
    limits = SetAsideLimits(max_runs=0, tried_runs=1)
    retries = Retries(rig.waiting, rig.projection.catch_up, Quarantine("projection", "run_id"), limits)
    left = []
    for _ in range(2):
        await retries.look()
        left.append(len(await rig.waiting.runs([], 10)))
    assert left == [1, 0]


@pytest.mark.parametrize("entry", [b"\xff\xff", b"", event_pb2.RunEvent(run_id=h.ulid("run", 1)).SerializeToString()])
async def test_entries_that_are_no_events_are_refused(entry: bytes, rig: Rig) -> None:
    log = FakeLog({0: [entry]})
    async with serving(log) as channel, running(rig.tail(channel)) as task:
        await asyncio.wait_for(task, PATIENCE_S)
    assert rig.progress.halted == "undecodable"


async def test_events_of_a_later_release_wait_as_they_are_until_its_projector_reads_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While runtime is of a later release already, or the projector of an earlier one again. An event that can be read
    waits byte for byte, too: the later release may have given it a field."""
    runs = some_runs(12)
    of_later = {_of_a_later_release(event): event for event in runs[4][2:4]}
    log = FakeLog(spread([*runs[:4], runs[4][:2], *runs[5:]]), page=7)
    with_field = h.event_bytes(runs[4][4]) + _UNKNOWN_FIELD
    log.partitions[0] += [*of_later, with_field, *map(h.event_bytes, runs[4][5:])]
    async with serving(log) as channel, running(rig.tail(channel)):
        await until(lambda: rig.progress.caught_up_once)
        await rig.retries.look()
        assert (rig.progress.halted, rig.progress.reconnects) == ("", {})
        await check_everything_once(rig, runs[:4] + runs[5:])

    read: list[bytes] = []

    def decode_as_later(data: bytes) -> e.RunEvent:
        read.append(data)
        return of_later.get(data) or decode_event(data)

    monkeypatch.setattr(summaries_app, "decode_event", decode_as_later)
    later = Rig(rig.postgres)
    await later.retries.look()
    await check_everything_once(later, runs)
    assert read[:3] == [*of_later, with_field]


async def test_a_partition_whose_events_can_not_be_read_waits_and_the_others_go_on(rig: Rig) -> None:
    """More runs than may be set aside: the projector is told of all of them again, from where it stands."""
    runs = some_runs(12)
    log = FakeLog(spread(runs))
    later = [h.whole_run(number) for number in range(100, 103)]
    log.partitions[0] = [_of_a_later_release(run[0]) for run in later] + log.partitions[0]
    async with serving(log) as channel, running(rig.tail(channel)):
        others = {number: len(entries) for number, entries in log.partitions.items() if number != 0}
        await until(lambda: {number: rig.progress.applied.get(number) for number in others} == others)
        await until(lambda: rig.progress.reconnects.get("missing_payload", 0) > 1)
        assert (rig.progress.halted, rig.progress.applied[0]) == ("", 2)


_UNKNOWN_FIELD = b"\xba\x3e\x01x"
"""Field 999, with bytes."""


def _of_a_later_release(event: e.RunEvent) -> bytes:
    """The event as it looks to a release that does not know its kind."""
    return encode_event(event.run_id, event.seq, event.recorded_ns, event.lease_epoch, _UNKNOWN_FIELD)


async def test_two_projectors_on_one_database_apply_everything_once(postgres: Postgres) -> None:
    """Whoever loses the race for a batch goes on behind it, in the same session: a lost race makes nobody unready."""
    runs = some_runs()
    first, second = Rig(postgres), Rig(postgres)
    log = FakeLog(spread(runs[:20]), page=2)
    total = sum(len(run) for run in runs)
    async with serving(log) as channel, running(first.tail(channel)), running(second.tail(channel)):
        await until(lambda: first.progress.caught_up_once and second.progress.caught_up_once)
        for number, run in enumerate(runs[20:], start=20):
            await log.append(number % PARTITIONS, run)
        for rig in (first, second):
            await until(lambda rig=rig: sum(rig.progress.applied.values()) == total)  # type: ignore[misc]
    assert first.progress.events + second.progress.events == total
    assert first.progress.reconnects == second.progress.reconnects == {}
    await check_everything_once(first, runs)


async def test_a_batch_that_nobody_else_has_applied_is_not_stepped_over(rig: Rig) -> None:
    """A checkpoint that is said to have moved, and has not, ends the session: there is nothing to go on from."""

    class Never:
        async def apply(self, checkpoint: Checkpoint, batch: LogBatch) -> Applied:
            raise CheckpointMoved(f"partition {batch.partition} is said to be elsewhere than {checkpoint.position}")

        async def set_aside(self, checkpoint: Checkpoint, batch: LogBatch, error: Exception) -> Applied:
            raise error

        async def is_empty(self) -> bool:
            return True

    log = FakeLog(spread(some_runs(3)))
    async with serving(log) as channel:
        tail = Tail(GrpcLogSource(channel), rig.checkpoints, Never(), rig.progress, limits=QUICK)
        async with running(tail):
            await until(lambda: rig.progress.reconnects.get("checkpoint_moved", 0) > 1)
    assert sum(rig.progress.applied.values()) == 0


@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["at that moment", "in the pause"])
async def test_a_cancel_is_heard_also_while_a_session_fails(rig: Rig, after_s: float) -> None:
    tasks: list[asyncio.Task[None]] = []

    class Fails:
        async def apply(self, checkpoint: Checkpoint, batch: LogBatch) -> Applied:
            if tasks and after_s:
                asyncio.get_running_loop().call_later(after_s, tasks.pop().cancel)
            elif tasks:
                tasks.pop().cancel()
            raise Refusal("unavailable", "away; try again")

        async def set_aside(self, checkpoint: Checkpoint, batch: LogBatch, error: Exception) -> Applied:
            raise error

        async def is_empty(self) -> bool:
            return True

    async with serving(FakeLog(spread(some_runs(3)))) as channel:
        limits = replace(QUICK, backoff_min_ms=60_000, backoff_max_ms=60_000)
        tail = Tail(GrpcLogSource(channel), rig.checkpoints, Fails(), rig.progress, limits=limits, jitter=lambda: 1.0)
        task = asyncio.create_task(tail.run())
        tasks.append(task)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def test_killed_connections_in_the_middle_of_transactions_lose_and_repeat_nothing(
    rig: Rig, projector_database: Database
) -> None:
    """The server ends the projector's connections while it applies a run, again and again; the commit's answer may be
    lost too. Each is gone before the next run comes, and the last runs are left in peace."""
    runs, killed = some_runs(80), 0
    admin = await asyncpg.connect(projector_database.admin)
    kill = """
        SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'projector_app' AND state <> 'idle'
    """
    log = FakeLog(spread([]), page=1)

    def applied() -> int:
        return sum(rig.progress.applied.values())

    async with serving(log) as channel, running(rig.tail(channel, replace(QUICK, batch_events=1))) as task:
        for number, run in enumerate(runs):
            await log.append(number % PARTITIONS, run)
            stored = sum(map(len, log.partitions.values()))
            while killed < 15 and number < 60 and applied() < stored:
                assert not task.done(), task.exception()
                if now := await admin.fetchval(kill):
                    killed += now
                    break
        await until(lambda: applied() == stored)
    await admin.close()
    assert killed > 0
    await check_everything_once(rig, runs)


async def test_a_transaction_takes_no_further_batch_past_its_limit(rig: Rig) -> None:
    """Nothing is applied before all batches have been sent, so that there is always a further one."""
    log = FakeLog(spread(some_runs()), page=3)
    sizes: list[int] = []
    unsent = sum(math.ceil(len(entries) / log.page) for entries in log.partitions.values())
    all_sent = asyncio.Event()
    apply = rig.projection.apply

    def count(_: int, message: pb.TailLogResponse) -> pb.TailLogResponse:
        nonlocal unsent
        unsent -= 1
        if not unsent:
            all_sent.set()
        return message

    async def note(checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        sizes.append(len(batch.events))
        await all_sent.wait()
        return await apply(checkpoint, batch)

    log.meddle = count
    rig.projection.apply = note  # type: ignore[method-assign]
    async with serving(log) as channel, running(rig.tail(channel, replace(QUICK, batch_events=7))):
        await until(lambda: rig.progress.caught_up_once)
    assert max(sizes) == 9  # the third batch of three reaches the limit, and none comes after it


async def test_a_full_queue_holds_the_stream_back(rig: Rig) -> None:
    """Nothing piles up in memory while the database is slow: the stream is read no further than the queues take."""
    sent = 0

    def count(number: int, message: pb.TailLogResponse) -> pb.TailLogResponse:
        nonlocal sent
        sent = number + 1
        return message

    data = b"x" * 60_000
    run = h.history(1, [h.created(), h.started(), *(h.text(data) for _ in range(600))])
    log = FakeLog({0: [h.event_bytes(event) for event in run]}, page=1, meddle=count)
    blocker = asyncio.Event()
    apply = rig.projection.apply

    async def slow(checkpoint: Checkpoint, batch: LogBatch) -> Applied:
        await blocker.wait()
        return await apply(checkpoint, batch)

    rig.projection.apply = slow  # type: ignore[method-assign]
    async with serving(log) as channel, running(rig.tail(channel, replace(QUICK, queue_batches=2))):
        await until(lambda: sent > 3)
        await asyncio.sleep(0.3)
        assert sent < 400  # what gRPC itself has under way is bounded in bytes
        blocker.set()
        await until(lambda: rig.progress.caught_up_once)
    assert sent == len(run)


async def test_the_pause_between_sessions_doubles_up_to_its_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def note(delay_s: float) -> None:
        delays.append(delay_s)
        await sleep(0)
        if len(delays) == 6:
            raise asyncio.CancelledError

    limits = TailLimits(backoff_min_ms=100, backoff_max_ms=1000)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        tail = rig.tail(channel, limits)
        tail._jitter = lambda: 1.0
        monkeypatch.setattr("services.projector.projection.app.asyncio.sleep", note)
        with pytest.raises(asyncio.CancelledError):
            await tail.run()
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_read_models_are_made_anew_as_the_runbook_says(
    postgres: Postgres, projector_database: Database, repository: Path
) -> None:
    """After a restore of the log: docs/runbooks/projection-stopped.md, word by word."""
    page = (repository / "docs/runbooks/projection-stopped.md").read_text("utf-8")
    block = page.split("```sql\n")[1].split("```")[0]
    runs = some_runs(12)
    before, after = Rig(postgres), Rig(postgres)
    async with serving(FakeLog(spread(runs))) as channel, running(before.tail(channel)):
        await until(lambda: before.progress.caught_up_once)
    await before.lineage.open()
    owner = await asyncpg.connect(projector_database.owner)
    await owner.execute("UPDATE projection.journal_epoch SET timeline = timeline + 1")
    await owner.execute(block)
    given = await owner.fetchval("SELECT epoch FROM projection.journal_epoch")
    await owner.close()
    async with serving(FakeLog(spread(runs[:5]), epoch="restored")) as channel, running(after.tail(channel)):
        await until(lambda: after.progress.caught_up_once)
    await check_everything_once(after, runs[:5])
    assert await after.summaries.summary(runs[6][0].run_id) is None
    await after.lineage.open()
    assert after.lineage.epoch == given != before.lineage.epoch, "one new epoch is enough, wherever the journal is now"
