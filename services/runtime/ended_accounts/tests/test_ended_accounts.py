"""A service account that was revoked leaves nothing behind that goes on: no schedule, and no run at its workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.auth.revocations import Revocation
from oa_platform.system.ids import new_id
from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.ended_accounts.app import EndedAccounts
from services.runtime.schedules.metrics import PAUSED
from services.runtime.schedules.tests.scene import Hand, create, scheduling, settled, show, standing, starts
from services.runtime.tests.rig import (
    PATIENT_WORKERS,
    Replica,
    Somebody,
    attached,
    finish,
    refusal_of_call,
    replica,
    runtime_settings,
    somebody,
)

ACTIVE, STOPPED = pb.SCHEDULE_STATUS_ACTIVE, pb.SCHEDULE_STATUS_PAUSED


def revoke(runtime: Replica, revocation: Revocation) -> None:
    runtime.revocations.take([revocation], runtime.revocations.position + 1)


@pytest.fixture
def person() -> Somebody:
    return somebody()


@pytest.fixture
def account(person: Somebody) -> Somebody:
    """A service account of the person's org."""
    return replace(person, user_id=person.account_id)


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, person: Somebody) -> AsyncIterator[Replica]:
    async with scheduling(runtime_database, person) as runtime:
        yield runtime


# ------------------------------------------------------------------------------------------------------- schedules


async def test_schedules_of_a_revoked_account_are_paused_and_others_go_on(
    runtime: Replica, person: Somebody, account: Somebody, runtime_database: Database
) -> None:
    made = [await create(runtime, account, name) for name in ("one", "two")]
    others = await create(runtime, person, "others")
    before = value_of(PAUSED)
    revoke(runtime, Revocation(subject=account.user_id))
    for schedule in made:
        shown = await standing(runtime, person, schedule.name, STOPPED)
        assert shown.pause_reason.startswith(f"its owner {account.user_id} was revoked")
    await eventually(lambda: value_of(PAUSED) == before + 2)
    hand = Hand(runtime_database)
    for schedule in [*made, others]:
        await hand.set_back(schedule)
    await settled(runtime, person, 1, "others")
    assert [await hand.runs(schedule) for schedule in made] == [{}, {}]


async def test_nobody_starts_a_run_of_a_revoked_account(runtime: Replica, person: Somebody, account: Somebody) -> None:
    await create(runtime, account, "left")
    revoke(runtime, Revocation(subject=account.user_id))
    await standing(runtime, person, "left", STOPPED)
    for what, call in starts(runtime, person, "left").items():
        refusal = await refusal_of_call(call)
        assert (refusal.reason, refusal.field) == ("invalid_transition", "schedule"), what
    deleted = await runtime.schedules.DeleteSchedule(
        pb.DeleteScheduleRequest(schedule="left"), metadata=person.as_person()
    )
    assert not deleted.already_deleted


async def test_a_schedule_that_was_created_while_word_was_on_its_way_starts_nothing(
    runtime_database: Database, person: Somebody, account: Somebody
) -> None:
    """Another replica has not heard of the revocation yet, and takes the account's token."""
    async with scheduling(runtime_database, person) as told, scheduling(runtime_database, person) as late:
        await create(told, account, "first")
        revoke(told, Revocation(subject=account.user_id))
        await standing(told, person, "first", STOPPED)
        made, hand = await create(late, account, "second"), Hand(runtime_database)
        await hand.set_back(made)
        assert (await standing(late, person, "second", STOPPED)).pause_reason.startswith("its owner")
        assert await hand.runs(made) == {}


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(session_id="ses_1"),
        Revocation(subject="{}", session_id="ses_1"),
        Revocation(subject="{}", org_id="org_1"),
        Revocation(subject="{}", issued_before_s=1.0),
    ],
    ids=["a session", "its session", "in an org", "tokens of before"],
)
async def test_a_revocation_of_less_than_an_account_ends_nothing_that_lasts(
    runtime: Replica, person: Somebody, account: Somebody, revocation: Revocation
) -> None:
    await create(runtime, account, "stays")
    await create(runtime, Somebody(person.key, person.org_id, new_id("sva")), "goes")
    goes = (await show(runtime, person, "goes")).schedule
    revoke(runtime, replace(revocation, subject=revocation.subject.format(account.user_id)))
    revoke(runtime, Revocation(subject=goes.user_id))
    await standing(runtime, person, "goes", STOPPED)  # they are looked at in their order
    assert (await show(runtime, person, "stays")).schedule.status == ACTIVE


async def test_what_was_revoked_before_the_replica_came_is_heard_of_too(
    runtime_database: Database, person: Somebody, account: Somebody
) -> None:
    async with scheduling(runtime_database, person) as runtime:
        await create(runtime, account, "left")
    ends: list[str] = []
    async with scheduling(runtime_database, person) as runtime:
        revoke(runtime, Revocation(subject=account.user_id))
        runtime.revocations.listen(lambda one: ends.append(one.ended_subject))
        await standing(runtime, person, "left", STOPPED)
    assert ends == [account.user_id]


# --------------------------------------------------------------------------------------------------------- workers


async def test_runs_of_a_worker_that_is_not_attached_go_to_another_account_at_once(
    runtime_database: Database, person: Somebody
) -> None:
    """It would be lost, and the run would wait, for longer than anybody does."""
    patient = replace(PATIENT_WORKERS, retry_initial_ms=3_600_000, retry_max_ms=3_600_000)
    async with replica(runtime_settings(runtime_database, workers=patient), person.key) as runtime:
        gone = await attached(runtime, person)
        run_id = (await runtime.create(person)).run_id
        assert (await gone.next("assignment")).assignment.lease_epoch == 1
        await gone.leave()
        staying = await attached(runtime, replace(person, account_id=new_id("sva")))
        revoke(runtime, Revocation(subject=person.account_id))
        async with asyncio.timeout(PATIENCE_S):
            again = (await staying.next("assignment")).assignment
        assert (again.run.run_id, again.lease_epoch) == (run_id, 2)
        assert (await staying.append(run_id, 2, "end", finish())).last_seq


async def test_workers_of_other_accounts_keep_their_runs(runtime_database: Database, person: Somebody) -> None:
    async with replica(runtime_settings(runtime_database), person.key) as runtime:
        worker = await attached(runtime, person)
        run_id = (await runtime.create(person)).run_id
        await worker.next("assignment")
        other = replace(person, account_id=new_id("sva"))
        theirs = await attached(runtime, other)
        revoke(runtime, Revocation(subject=other.account_id))
        with pytest.raises(Refusal, match="token_revoked"):
            await theirs.leave()
        assert (await worker.append(run_id, 1, "end", finish())).last_seq


# ------------------------------------------------------------------------------------------------------ try again


class Flaky:
    """A store that is away at first."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.added: list[str] = []
        self.ended: list[str] = []

    async def add(self, account_id: str) -> None:
        self.added.append(account_id)

    async def end(self, account_id: str) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        self.ended.append(account_id)


@pytest.mark.parametrize("error", [Refusal("unavailable", "away; try again"), KeyError("a defect")], ids=repr)
async def test_what_could_not_be_ended_is_tried_again_and_keeps_up_nobody(error: Exception) -> None:
    flaky = Flaky(1, error)
    accounts = EndedAccounts(flaky, [flaky.end], retry_s=0.001)
    for account_id in ("sva_1", "sva_2"):
        accounts.on_revocation(Revocation(subject=account_id))
    running = asyncio.create_task(accounts.run())
    await eventually(lambda: len(flaky.ended) == 2)
    running.cancel()
    assert flaky.ended == ["sva_2", "sva_1"]
    assert flaky.added == ["sva_1", "sva_2", "sva_1"]
