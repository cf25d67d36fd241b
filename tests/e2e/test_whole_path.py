"""The whole path: sign in, worker, run, live tail, a cut in the middle, resume, receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from oa_client.core.store import MemoryStore
from oa_client.core.wire import documents
from oa_client.follow.subscription import Subscription
from oa_client.follow.updates import Applied, Refused
from oa_khala.grants import runs_of
from oa_khala.topics import org_workers, run_events, user_notifications, user_runs, worker_lifecycle
from oa_testing.stack import StackUnderTest
from openagents.projection.v1.notification_pb2 import Notification
from openagents.projection.v1.run_summary_pb2 import RunSummary
from openagents.runtime.v1.worker_pb2 import Worker, WorkerEvent
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Counting, Tail, World, signed_in

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("real_processes")]


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_stack: StackUnderTest, tmp_path: Path) -> AsyncIterator[World]:
    """A person of their own for each test, in an org of their own."""
    async with signed_in(shared_stack, tmp_path / "client", f"{tmp_path.name}@example.org") as world:
        yield world


async def test_a_run_is_watched_cut_resumed_and_proved(world: World, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=120, parts=3)
    store = world.open_store()
    cuts = 0

    async def cut_twice(subscription: Subscription, seq: int) -> None:
        """In two parts of the output: what had arrived before a cut is handed out before it is noticed."""
        nonlocal cuts
        if tail.stdout and cuts == tail.breaks < 2 and subscription.cut():
            cuts += 1
            counting.go_on()

    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(counting.command, title="counting")
        tail = Tail(run.run_id)
        await world.follow(tail, store, cut_twice)

    assert cuts == 2
    assert tail.breaks >= 2
    assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
    assert tail.finish is not None
    assert tail.finish.outcome == "succeeded"
    assert tail.finish.exec is not None
    assert tail.finish.exec.exit_code == 0
    sizes = (tail.finish.exec.stdout_bytes, tail.finish.exec.stderr_bytes)
    assert sizes == (len(counting.stdout), len(counting.stderr))
    assert tail.finish.exec.duration_ms >= 120 * Counting.PAUSE_S * 1000
    await world.assert_proved(tail, store)
    await world.assert_summarised(tail)


async def test_all_runs_of_an_org_are_followed_by_one_token_as_they_come(world: World) -> None:
    grant = runs_of((await world.client.commands.caller()).org_id)
    following = world.client.subscription(world.open_store(), grants=[grant])
    tails: dict[str, Tail] = {}

    async def start_one() -> None:
        run = await world.client.commands.start_exec(["true"])
        tails[run_events(run.run_id)] = Tail(run.run_id)
        await following.follow(run_events(run.run_id))

    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S), following:
        await start_one()
        async for update in following.updates():
            assert not isinstance(update, Refused), update
            if isinstance(update, Applied):
                tail = tails[update.topic]
                tail.take(update.seq, update.payload)
                if tail.finish and len(tails) == 3:
                    break
                if tail.finish:
                    await start_one()
    assert all(tail.finish for tail in tails.values())


async def test_workers_and_what_a_person_is_told_are_followed_live(world: World) -> None:
    caller = await world.client.commands.caller()
    workers, told = org_workers(caller.org_id), user_notifications(caller.subject)
    following = world.client.subscription(world.open_store(), grants=[f"worker:{caller.org_id}:lifecycle"])
    run_id, worker_id, lives = "", "", []
    held, finished = set[str](), set[str]()

    async def at_work(worker: Worker) -> None:
        """The worker is there: give it a run, and follow its life."""
        nonlocal run_id, worker_id
        worker_id = worker.worker_id
        run_id = (await world.client.commands.start_exec(["sleep", "1"])).run_id
        await following.follow(worker_lifecycle(worker_id))

    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S), following:
        await following.follow(workers)
        await following.follow(told)
        async for update in following.updates():
            assert not isinstance(update, Refused), update
            if not isinstance(update, Applied):
                continue
            if update.topic == workers:
                for worker in map(Worker.FromString, documents(update.payload, snapshot=update.snapshot)):
                    held.update(worker.run_ids)
                    if not run_id:
                        await at_work(worker)
            elif update.topic == told:
                finished.add(Notification.FromString(update.payload).run_id)
            else:
                lives.append(WorkerEvent.FromString(update.payload))
            if run_id in finished & held and lives:
                break
    assert lives[0].worker_id == worker_id


async def test_who_has_no_cursor_gets_a_list_as_it_stands_and_then_what_changes(world: World) -> None:
    topic = user_runs(world.client.auth.credentials().user_id)
    runs: dict[str, RunSummary] = {}
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        for _ in range(3):
            run = await world.client.commands.start_exec(["true"])
            tail = Tail(run.run_id)
            await world.follow(tail, world.open_store())
            await world.assert_summarised(tail)
        async with world.client.subscription(MemoryStore()) as subscription:
            await subscription.follow(topic)
            was_snapshot = []
            async for update in subscription.updates():
                if isinstance(update, Applied):
                    was_snapshot.append(update.snapshot)
                    for one in map(RunSummary.FromString, documents(update.payload, snapshot=update.snapshot)):
                        runs[one.run_id] = one
                    if len(was_snapshot) == 1:
                        assert len(runs) == 3
                        run = await world.client.commands.start_exec(["true"])
                    if run.run_id in runs:
                        break
    assert was_snapshot[0]
    assert not any(was_snapshot[1:])


async def test_a_client_that_comes_back_later_resumes_from_what_it_persisted(world: World, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=60)

    async def leave(_: Subscription, seq: int) -> bool:
        return not tail.stdout

    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(counting.command)
        tail = Tail(run.run_id)
        await world.follow(tail, world.open_store(), leave)
        assert tail.finish is None
        counting.go_on()
        await world.follow(tail, world.open_store())  # another store object on the same file, another connection

    assert bytes(tail.stdout) == counting.stdout
    await world.assert_proved(tail, world.open_store())


async def test_a_failing_command_is_a_failed_run_with_its_exit_code(world: World) -> None:
    store = world.open_store()
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(["/bin/sh", "-c", "echo so; exit 7"])
        tail = Tail(run.run_id)
        await world.follow(tail, store)

    assert tail.finish is not None
    assert tail.finish.outcome == "failed"
    assert tail.finish.exec is not None
    assert tail.finish.exec.exit_code == 7
    facts = await world.assert_proved(tail, store)
    assert facts.outcome == "failed"


async def test_a_program_that_does_not_exist_is_a_failed_run_that_says_so(world: World) -> None:
    store = world.open_store()
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(["/no/such/program"])
        tail = Tail(run.run_id)
        await world.follow(tail, store)

    assert tail.finish is not None
    assert (tail.finish.outcome, tail.finish.reason) == ("failed", "command_not_found")
    await world.assert_proved(tail, store)


async def test_a_cancelled_run_ends_cancelled(world: World, tmp_path: Path) -> None:
    store = world.open_store()
    canceled = False

    async def cancel(_: Subscription, seq: int) -> None:
        nonlocal canceled
        if tail.stdout and not canceled:
            canceled = True
            await world.client.commands.cancel(run.run_id, "enough")

    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(Counting(tmp_path / "gates", lines=20).command)
        tail = Tail(run.run_id)
        await world.follow(tail, store, cancel)

    assert tail.finish is not None
    assert tail.finish.outcome == "canceled"
    await world.assert_proved(tail, store)


async def test_the_list_of_runs_is_live_too(world: World) -> None:
    """The same protocol from the other source: summaries from the projector's journal."""
    topic = user_runs(world.client.auth.credentials().user_id)
    subscribed = world.client.subscription(world.open_store())
    async with world.worker(), asyncio.timeout(STEP_TIMEOUT_S), subscribed as subscription:
        await subscription.follow(topic)
        await world.client.commands.start_exec(["/bin/echo", "hello"])
        seqs: list[int] = []
        async for update in subscription.updates():
            if isinstance(update, Applied):
                seqs.append(update.seq)
                if len(seqs) >= 2:
                    break
                # Everything about one run may be one row, if nobody looked meanwhile.
                await world.client.commands.start_exec(["/bin/echo", "hello again"])

    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
