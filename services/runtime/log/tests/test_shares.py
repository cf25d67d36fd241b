"""How many runs may run at a time: counted for each share, and never by two batches at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun
from oa_runlog.authority.decide import KnownKey
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import Concurrency, ExecSpec, Outcome, QueuePolicy, RunFinished, RunSpec, ThreadPolicy
from oa_runlog.state import RunState, RunStatus
from oa_testing.postgres import Database
from oa_testing.waiting import eventually
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Applied, Batch, Snapshot
from services.runtime.log.domain.shares import Share, ShareKind, bounds_of, shares_to_grow
from services.runtime.log.store.log import PostgresLog
from services.runtime.log.tests.one_sequencer import ORG, SPEC, USER, WORKER, replica, run_id_in

KEYED = RunSpec("exec", ExecSpec(("true",)), queue=QueuePolicy(concurrency=Concurrency("deploy", 2)))
SHARE = Share(ShareKind.KEY, ORG, "deploy")
OPEN = Share(ShareKind.OPEN_THREAD, ORG, "thr")


def run(run_id: str, user_id: str = USER, limit: int = 2, key: str = "deploy") -> RunState:
    queue = QueuePolicy(concurrency=Concurrency(key, limit)) if key else QueuePolicy()
    return RunState(run_id, ORG, user_id, RunStatus.CREATED, 1, bytes(32), 0, queue=queue)


def test_a_run_counts_in_each_bounded_share() -> None:
    limits = RunLimits(max_running_per_org=9, max_running_per_person=3)
    runs = {"run_1": run("run_1"), "run_2": run("run_2", key="")}
    assert bounds_of(AssignRun("run_1", WORKER), runs, limits) == {
        Share(ShareKind.ORG, ORG): 9,
        Share(ShareKind.PERSON, ORG, USER): 3,
        SHARE: 2,
    }
    assert bounds_of(AssignRun("run_2", WORKER), runs, RunLimits()) == {}


def test_only_what_is_given_to_a_worker_makes_a_share_grow() -> None:
    runs = {name: run(name) for name in ("run_1", "run_2")}
    commands: list[Command] = [
        CreateRun.of("run_3", ORG, USER, KEYED, "k"),
        AssignRun("run_1", WORKER),
        AssignRun("run_9", WORKER),
    ]
    assert shares_to_grow(commands, runs, RunLimits()) == [SHARE]
    assert shares_to_grow(commands[:1], runs, RunLimits()) == []


def create(policy: ThreadPolicy | None, thread_id: str = "thr", key: str = "k") -> CreateRun:
    spec = RunSpec("exec", ExecSpec(("true",)), thread_id=thread_id, thread_policy=policy)
    return CreateRun.of(new_id("run"), ORG, USER, spec, key)


def test_a_run_that_has_had_its_turn_keeps_it() -> None:
    waiting = replace(run("run_1", key=""), thread_id="thr")
    turn = Share(ShareKind.THREAD, ORG, "thr")
    assert bounds_of(AssignRun("run_1", WORKER), {"run_1": waiting}, RunLimits()) == {turn: 1}
    assert bounds_of(AssignRun("run_1", WORKER), {"run_1": replace(waiting, attempt=1)}, RunLimits()) == {}


@pytest.mark.parametrize(
    ("policies", "created"),
    [
        ([ThreadPolicy.REJECT, ThreadPolicy.REJECT], [True, False]),
        ([ThreadPolicy.ENQUEUE, ThreadPolicy.REJECT], [True, False]),
        ([ThreadPolicy.INTERRUPT, ThreadPolicy.REJECT], [True, False]),
        ([ThreadPolicy.REJECT, ThreadPolicy.ENQUEUE, ThreadPolicy.INTERRUPT], [True, True, True]),
    ],
)
def test_who_is_not_to_wait_is_refused_beside_others_of_one_batch(
    policies: list[ThreadPolicy], created: list[bool]
) -> None:
    batch = Batch({3: Head(0, b"")}, Snapshot(0, "log_1", {}, {}, {}), RunLimits(), {OPEN: 0})
    answers = [batch.apply(create(policy, key=str(n)), 3) for n, policy in enumerate(policies)]
    assert [isinstance(answer, Applied) for answer in answers] == created
    assert {answer.reason for answer in answers if isinstance(answer, Refusal)} <= {"thread_busy"}


def test_a_repetition_is_answered_as_the_first_time_though_the_thread_is_busy() -> None:
    command = create(ThreadPolicy.REJECT)
    known = {(ORG, USER, "k"): KnownKey(command.run_id, command.fingerprint, 1, 1)}
    batch = Batch({3: Head(0, b"")}, Snapshot(0, "log_1", {}, {}, known), RunLimits(), {OPEN: 1})
    answer = batch.apply(command, 3)
    assert isinstance(answer, Applied)
    assert answer.repeated


@pytest.mark.parametrize(("held", "given"), [(0, 2), (1, 1), (2, 0), (7, 0)])
def test_one_batch_passes_no_limit(held: int, given: int) -> None:
    runs = {name: run(name) for name in ("run_1", "run_2", "run_3")}
    snapshot = Snapshot(0, "log_1", runs, {}, {})
    batch = Batch({3: Head(0, b"")}, snapshot, RunLimits(), {SHARE: held})
    answers = [batch.apply(AssignRun(name, WORKER), 3) for name in runs]
    assert [isinstance(answer, Applied) for answer in answers] == [True] * given + [False] * (3 - given)
    assert all(answer.reason == "invalid_transition" for answer in answers if isinstance(answer, Refusal))


def test_each_run_states_its_own_limit_of_the_key() -> None:
    """One that may run alone waits; one that may run beside two others goes."""
    runs = {"run_1": run("run_1", limit=1), "run_2": run("run_2", limit=3)}
    batch = Batch({3: Head(0, b"")}, Snapshot(0, "log_1", runs, {}, {}), RunLimits(), {SHARE: 2})
    assert isinstance(batch.apply(AssignRun("run_1", WORKER), 3), Refusal)
    assert isinstance(batch.apply(AssignRun("run_2", WORKER), 3), Applied)


def test_a_run_takes_the_place_of_its_parent_or_its_own_and_each_place_is_taken_once() -> None:
    runs = {name: run(name, key="") for name in ("run_1", "run_2", "run_3", "run_4")}
    lenders = {"run_1": "run_p", "run_2": "run_p", "run_3": "run_3"}
    limits, everybody = RunLimits(max_running_per_org=2), Share(ShareKind.ORG, ORG)
    batch = Batch({3: Head(0, b"")}, Snapshot(0, "log_1", runs, {}, {}), limits, {everybody: 2}, lenders)
    answers = [batch.apply(AssignRun(name, WORKER), 3) for name in runs]
    assert [isinstance(answer, Applied) for answer in answers] == [True, False, True, False]


def test_a_key_is_a_lock_and_nobody_lends_it() -> None:
    snapshot = Snapshot(0, "log_1", {"run_1": run("run_1")}, {}, {})
    batch = Batch({3: Head(0, b"")}, snapshot, RunLimits(), {SHARE: 2}, {"run_1": "p"})
    assert isinstance(batch.apply(AssignRun("run_1", WORKER), 3), Refusal)


async def test_of_a_family_the_lowest_counts_and_one_more_takes_the_place_of_its_parent(
    runtime_database: Database,
) -> None:
    everybody, person = Share(ShareKind.ORG, ORG), Share(ShareKind.PERSON, ORG, USER)
    top, middle, low, beside, lone, new = (run_id_in(number) for number in range(1, 7))
    async with replica(runtime_database.runtime) as rig:
        for run_id, parent in ((top, ""), (middle, top), (low, middle), (beside, top), (lone, ""), (new, lone)):
            create = CreateRun.of(run_id, ORG, USER, SPEC, run_id)
            await rig.submit(create.child_of(parent, cancel_with_parent=False) if parent else create)
        for run_id in (top, middle, low, lone):
            await rig.submit(AssignRun(run_id, WORKER))
        await rig.submit(Append.of(middle, ORG, WORKER, 1, "end", [RunFinished(Outcome.SUCCEEDED)]))
        async with PostgresLog(rig.postgres).session() as session, session.transaction([8]) as transaction:
            # `low` is below `top` though what was between them has ended.
            assert await transaction.counted([everybody, person]) == {everybody: 2, person: 2}
            asked = {beside: top, new: lone, top: "", "run_of_nobody": ""}
            assert await transaction.lenders(asked) == {new: lone, top: top}


async def test_what_workers_hold_is_counted(runtime_database: Database) -> None:
    async with replica(runtime_database.runtime) as rig:
        for partition, spec in ((1, KEYED), (2, KEYED), (3, SPEC)):
            run_id = run_id_in(partition)
            await rig.submit(CreateRun.of(run_id, ORG, USER, spec, run_id))
            await rig.submit(AssignRun(run_id, WORKER))
        waiting = run_id_in(4)
        await rig.submit(CreateRun.of(waiting, ORG, USER, KEYED, waiting))
        with pytest.raises(Refusal) as caught:
            await rig.submit(AssignRun(waiting, WORKER))
        assert caught.value.reason == "invalid_transition"
        shares = [SHARE, Share(ShareKind.ORG, ORG), Share(ShareKind.PERSON, ORG, USER), Share(ShareKind.ORG, "org_x")]
        async with PostgresLog(rig.postgres).session() as session, session.transaction([5]) as transaction:
            assert await transaction.counted(shares) == dict(zip(shares, (2, 3, 3, 0), strict=True))


_WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"""


async def test_a_share_is_counted_by_one_batch_at_a_time(runtime_database: Database) -> None:
    """Of two replicas, on two partitions: the second one counts what the first one has given away."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(replica(runtime_database.runtime)) for _ in range(2)]
        admin = await asyncpg.connect(runtime_database.admin)
        stack.push_async_callback(admin.close)
        waiting = 0

        async def look() -> None:
            nonlocal waiting
            while True:
                waiting = await admin.fetchval(_WAITING)
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        stack.callback(looking.cancel)
        async with PostgresLog(one.postgres).session() as first, first.transaction([1]) as holder:
            assert await holder.counted([SHARE]) == {SHARE: 0}
            run_id = run_id_in(2)
            await other.submit(CreateRun.of(run_id, ORG, USER, KEYED, run_id))
            given = other.submit(AssignRun(run_id, WORKER))
            await eventually(lambda: waiting == 1 or given.done())
            assert not given.done(), "it was counted while another batch may give one away"
        assert not (await given).repeated
