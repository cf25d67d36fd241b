"""Who has lost a place starts nothing more; a deleted org's runs end, and its schedules go on when it is restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.config.shared import QuarantineSettings
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.system.ids import new_id
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.runtime.v1 import run_pb2, run_service_pb2
from openagents.runtime.v1 import schedule_service_pb2 as pb
from services.runtime.places.app import OpenRun, Places
from services.runtime.places.limits import PlaceLimits
from services.runtime.schedules.tests.scene import Hand, create, scheduling, settled, show, standing, starts
from services.runtime.tests.rig import Replica, Somebody, attached, refusal_of_call, somebody

ACTIVE, STOPPED = pb.SCHEDULE_STATUS_ACTIVE, pb.SCHEDULE_STATUS_PAUSED
LOST, BACK = PlaceChange.LOST, PlaceChange.BACK


@pytest.fixture
def person() -> Somebody:
    return somebody()


@pytest.fixture
def colleague(person: Somebody) -> Somebody:
    """Another member of the person's org."""
    return replace(person, user_id=new_id("usr"))


@pytest_asyncio.fixture
async def runtime(runtime_database: Database, person: Somebody) -> AsyncIterator[Replica]:
    async with scheduling(runtime_database, person) as runtime:
        yield runtime


def tell(runtime: Replica, change: PlaceChange, subject: str = "", org_id: str = "", position: int = 0) -> None:
    """Control tells of a place at its next position, or once more of what it told at an earlier one."""
    at = position or runtime.revocations.position + 1
    before = 0.0  # whoever calls in these tests has a token that has not ended
    one = Revocation("", subject, org_id, before, change, position=at, revoked_s=1_700_000_000.0 + at)
    runtime.revocations.take([one], max(at, runtime.revocations.position))


async def resumed(runtime: Replica, who: Somebody, name: str) -> None:
    """The schedule goes on, as soon as its replica has heard that it may."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            call = runtime.schedules.ResumeSchedule(pb.ResumeScheduleRequest(schedule=name), metadata=who.as_person())
            try:
                await call
                return
            except grpc.aio.AioRpcError as error:
                if refusal_from_rpc_error(error).reason != "invalid_transition":
                    raise
            await asyncio.sleep(0.01)


async def ended(runtime: Replica, who: Somebody, run_id: str) -> run_pb2.Run:
    """The run, once somebody has asked for its end."""
    request = run_service_pb2.GetRunRequest(run_id=run_id)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            run: run_pb2.Run = (await runtime.runs.GetRun(request, metadata=who.as_person())).run
            if run.status in (run_pb2.RUN_STATUS_CANCELING, run_pb2.RUN_STATUS_CANCELED):
                return run
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------- people and accounts


@pytest.mark.parametrize("everywhere", [False, True], ids=["removed", "blocked"])
async def test_nobody_starts_a_run_for_who_has_no_place_and_a_person_lets_the_schedule_go_on(
    runtime: Replica, person: Somebody, colleague: Somebody, runtime_database: Database, everywhere: bool
) -> None:
    org_id = "" if everywhere else person.org_id
    left, others = await create(runtime, person, "left"), await create(runtime, colleague, "others")
    tell(runtime, LOST, person.user_id, org_id)
    shown = await standing(runtime, colleague, "left", STOPPED)
    assert shown.pause_reason.startswith(f"its owner {person.user_id} may start no runs here")
    for what, call in starts(runtime, colleague, "left").items():
        refusal = await refusal_of_call(call)
        assert (refusal.reason, refusal.field) == ("invalid_transition", "schedule"), what
    hand = Hand(runtime_database)
    for schedule in (left, others):
        await hand.set_back(schedule)
    await settled(runtime, colleague, 1, "others")
    assert await hand.runs(left) == {}

    tell(runtime, BACK, person.user_id, org_id)
    tell(runtime, LOST, new_id("usr"), person.org_id)  # changes are taken in their order
    await resumed(runtime, colleague, "left")
    await settled(runtime, colleague, 1, "left")


async def test_runs_of_who_has_no_place_go_on_and_so_do_schedules_in_other_orgs(
    runtime: Replica, person: Somebody, colleague: Somebody
) -> None:
    elsewhere = replace(person, org_id=new_id("org"))
    await create(runtime, person, "here")
    await create(runtime, elsewhere, "there")
    run = await runtime.create(person)
    tell(runtime, LOST, person.user_id, person.org_id)
    await standing(runtime, colleague, "here", STOPPED)
    assert (await show(runtime, elsewhere, "there")).schedule.status == ACTIVE
    request = run_service_pb2.GetRunRequest(run_id=run.run_id)
    got = await runtime.runs.GetRun(request, metadata=colleague.as_person())
    assert got.run.status == run_pb2.RUN_STATUS_CREATED


async def test_what_is_heard_once_more_after_a_start_changes_nothing(
    runtime_database: Database, person: Somebody, colleague: Somebody
) -> None:
    """A replica that starts hears from control's beginning that a place was lost, and then that it is back."""
    async with scheduling(runtime_database, person) as runtime:
        await create(runtime, person, "nightly")
        tell(runtime, LOST, person.user_id, person.org_id, position=3)
        await standing(runtime, colleague, "nightly", STOPPED)
        tell(runtime, BACK, person.user_id, person.org_id, position=7)
        await resumed(runtime, colleague, "nightly")
    async with scheduling(runtime_database, person) as runtime:
        await create(runtime, colleague, "marker")
        tell(runtime, LOST, person.user_id, person.org_id, position=3)
        tell(runtime, LOST, colleague.user_id, person.org_id, position=8)
        await standing(runtime, person, "marker", STOPPED)
        assert (await show(runtime, colleague, "nightly")).schedule.status == ACTIVE


# ------------------------------------------------------------------------------------------------------------- orgs


async def test_a_deleted_orgs_runs_end_and_its_schedules_go_on_when_it_is_restored(
    runtime: Replica, person: Somebody, runtime_database: Database
) -> None:
    other = replace(person, org_id=new_id("org"))
    nightly, elsewhere = await create(runtime, person), await create(runtime, other)
    await create(runtime, person, "by-hand")
    await runtime.schedules.PauseSchedule(pb.PauseScheduleRequest(schedule="by-hand"), metadata=person.as_person())
    worker = await attached(runtime, person)
    running = await runtime.create(person, "running")
    await worker.next("assignment")
    await worker.leave()
    waiting, untouched = await runtime.create(person, "waiting"), await runtime.create(other)

    tell(runtime, LOST, org_id=person.org_id)
    assert (await standing(runtime, person, "nightly", STOPPED)).pause_reason == "its org was deleted"
    hand = Hand(runtime_database)
    for run_id in (running.run_id, waiting.run_id):
        await ended(runtime, person, run_id)
        async with hand.connection() as connection:
            why = await connection.fetchval("SELECT cancel_reason FROM runtime.runs WHERE run_id = $1", run_id)
        assert why == "its org was deleted"
    for schedule in (nightly, elsewhere):
        await hand.set_back(schedule)
    await settled(runtime, other, 1)
    assert await hand.runs(nightly) == {}
    assert (await refusal_of_call(starts(runtime, person, "nightly")["trigger"])).reason == "invalid_transition"

    tell(runtime, BACK, org_id=person.org_id)
    assert (await settled(runtime, person, 1)).schedule.status == ACTIVE
    assert (await show(runtime, person, "by-hand")).schedule.status == STOPPED
    request = run_service_pb2.GetRunRequest(run_id=untouched.run_id)
    assert (await runtime.runs.GetRun(request, metadata=other.as_person())).run.status == run_pb2.RUN_STATUS_CREATED


async def test_what_a_late_replica_still_starts_in_a_deleted_org_ends_too(
    runtime_database: Database, person: Somebody
) -> None:
    """It has not heard of the deletion, and takes calls; another one has carried it out already."""
    async with scheduling(runtime_database, person) as told, scheduling(runtime_database, person) as late:
        await create(told, person, "first")
        tell(told, LOST, org_id=person.org_id)
        await standing(told, person, "first", STOPPED)
        made = await create(late, person, "second")
        await Hand(runtime_database).set_back(made)
        await standing(late, person, "second", STOPPED)
        assert await Hand(runtime_database).runs(made) == {}
        await ended(late, person, (await late.create(person)).run_id)


# -------------------------------------------------------------------------------------------------------- try again


@dataclass
class Flaky:
    """A store that is away at first, and says what was news."""

    failures: int
    error: Exception = field(default_factory=lambda: Refusal("unavailable", "away; try again"))
    taken: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    looks: int = 0

    async def take(self, change: Revocation) -> bool:
        self.taken.append(change.subject)
        return True

    async def open_runs(self, limit: int, left_out: object) -> list[OpenRun]:
        return []

    async def stop(self, subject: str, org_id: str) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        self.stopped.append(subject)

    async def look(self) -> None:
        self.looks += 1


async def test_a_change_that_meets_a_defect_waits_behind_the_others() -> None:
    flaky: Any = Flaky(failures=1, error=KeyError("a defect"))
    places = Places(flaky, flaky, flaky.stop, flaky.look, PlaceLimits())
    for subject in ("usr_1", "usr_2"):
        places.on_revocation(Revocation(subject=subject, place_change=LOST))
    await places.look_once()
    assert (flaky.stopped, flaky.looks) == (["usr_2"], 1)
    await places.look_once()
    assert flaky.stopped == ["usr_2", "usr_1"]


async def test_what_could_not_be_carried_out_is_tried_again_in_its_order() -> None:
    flaky: Any = Flaky(failures=2)
    places = Places(flaky, flaky, flaky.stop, flaky.look, PlaceLimits(retry_s=0.001, look_interval_s=3600))
    for subject in ("usr_1", "usr_2"):
        places.on_revocation(Revocation(subject=subject, place_change=LOST))
    places.on_revocation(Revocation(session_id="ses_1"))
    running = asyncio.create_task(places.run())
    await eventually(lambda: flaky.looks == 1)
    running.cancel()
    assert flaky.stopped == ["usr_1", "usr_2"]
    assert flaky.taken == ["usr_1", "usr_1", "usr_1", "usr_2"]


class Unending:
    """Runs of a deleted org whose cancel meets a defect, each time."""

    def __init__(self) -> None:
        self.looks = 0

    async def open_runs(self, limit: int, left_out: Sequence[str]) -> list[OpenRun]:
        self.looks += 1
        return [OpenRun(one, "org_1") for one in ("run_1", "run_2", "run_3") if one not in left_out][:limit]

    async def do(self, _command: object) -> None:
        raise ValueError("a defect")

    async def look(self) -> None: ...


async def test_more_runs_with_a_defect_than_are_left_out_make_no_look_follow_on_another() -> None:
    unending: Any = Unending()
    limits = PlaceLimits(page=1, look_interval_s=3600, quarantine=QuarantineSettings(max_things=1))
    places = Places(unending, unending, unending.look, unending.look, limits)
    places._word.give()
    running = asyncio.create_task(places.run())
    for _ in range(200):
        await asyncio.sleep(0)
    running.cancel()
    assert 0 < unending.looks < 5
