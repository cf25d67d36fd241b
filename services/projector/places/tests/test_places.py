"""Whoever has lost the place in an org is told nothing more of its runs, also not of those that they started."""

from __future__ import annotations

import asyncio

import pytest

from oa_base.refusal import Refusal
from oa_khala.topics import parse_topic
from oa_platform.auth.revocations import PlaceChange, Revocation
from oa_platform.postgres.pool import Postgres
from oa_testing.locks import until_lock_waits
from oa_testing.waiting import PATIENCE_S, eventually
from oa_topics.tests.conformance import Watch
from openagents.sync.v1 import frame_pb2
from services.projector.places.app import Places
from services.projector.places.limits import PlaceLimits
from services.projector.places.store import PostgresPlaceWriter
from services.projector.summaries.app import SummaryPlaces
from services.projector.summaries.store import PostgresRunDocuments
from services.projector.tests import histories as h
from services.projector.tests.doors import Doors, as_gateway
from services.projector.tests.rig import CODEC, Rig
from services.projector.wiring import transactions

LOST, BACK = PlaceChange.LOST, PlaceChange.BACK
MINE, TOLD, OURS = f"user:{h.USER}:runs", f"user:{h.USER}:notifications", f"org:{h.ORG}:runs"


def change(what: PlaceChange, position: int, subject: str = "", org_id: str = "") -> Revocation:
    """A change of a place, as control tells it at a position."""
    return Revocation("", subject, org_id, 0.0, what, position=position, revoked_s=1_700_000_000.0 + position)


def placed(rig: Rig) -> SummaryPlaces:
    """What keeps places, as it is wired."""
    return SummaryPlaces(transactions(rig.postgres, CODEC))


async def is_lost(postgres: Postgres, subject: str = h.USER, org_id: str = h.ORG) -> bool:
    async with postgres.acquire() as connection:
        return (subject, org_id) in await PostgresPlaceWriter(connection).lost({(subject, org_id), ("", "")})


@pytest.mark.parametrize(
    ("subject", "org_id"),
    [(h.USER, h.ORG), (h.USER, ""), ("", h.ORG)],
    ids=["removed", "blocked", "org deleted"],
)
async def test_a_place_is_lost_until_it_is_back(postgres: Postgres, subject: str, org_id: str) -> None:
    places = SummaryPlaces(transactions(postgres, CODEC))
    assert not await is_lost(postgres)
    assert await places.take(change(LOST, 1, subject, org_id))
    assert await is_lost(postgres)
    assert not await is_lost(postgres, h.OTHER_USER, h.OTHER_ORG)
    assert await places.take(change(BACK, 2, subject, org_id))
    assert not await is_lost(postgres)


async def test_the_newest_change_counts_in_whatever_order_and_however_often_it_is_told(postgres: Postgres) -> None:
    places = SummaryPlaces(transactions(postgres, CODEC))
    told = [change(LOST, 1, h.USER, h.ORG), change(BACK, 2, h.USER, h.ORG), change(LOST, 3, h.USER, h.ORG)]
    assert [await places.take(told[at]) for at in (2, 0, 1, 2)] == [True, False, False, False]
    assert await is_lost(postgres)


async def test_who_has_lost_the_place_is_told_nothing_more_and_the_org_is(rig: Rig) -> None:
    places, documents = placed(rig), PostgresRunDocuments(rig.postgres)

    async def rows() -> list[int]:
        return [len(await rig.journal.page(topic, 0, 100)) for topic in (MINE, TOLD, OURS)]

    async def listed(topic: str) -> int:
        return len((await documents.as_of_head(parse_topic(topic), 100))[1])

    run = h.whole_run(1)
    checkpoint = await rig.apply(await rig.checkpoint(), run[:3])
    assert await rows() == [1, 0, 1]
    await places.take(change(LOST, 1, h.USER, h.ORG))
    checkpoint = await rig.apply(checkpoint, run[3:])  # to its end, of which a person is told
    assert await rows() == [1, 0, 2]
    assert (await listed(MINE), await listed(OURS)) == (0, 1)
    await places.take(change(BACK, 2, h.USER, h.ORG))
    await rig.apply(checkpoint, h.whole_run(2))
    assert await rows() == [1, 1, 3]
    assert (await listed(MINE), await listed(OURS)) == (2, 2)


@pytest.mark.parametrize(
    ("subject", "org_id"),
    [(h.USER, h.ORG), (h.USER, ""), ("", h.ORG)],
    ids=["removed", "blocked", "org deleted"],
)
async def test_whoever_is_back_is_told_how_runs_stand_that_went_on_meanwhile(
    rig: Rig, doors: Doors, subject: str, org_id: str
) -> None:
    places, run = placed(rig), h.whole_run(1)
    checkpoint = await rig.apply(await rig.checkpoint(), [*run[:3], *h.whole_run(2, h.OTHER_USER, h.OTHER_ORG)])
    epoch = (await rig.hub.history.describe(MINE)).state.epoch
    mine, others = [(await rig.hub.history.describe(f"user:{one}:runs")).state.head for one in (h.USER, h.OTHER_USER)]
    watch = Watch(doors.topics.WatchTopics(metadata=as_gateway()))
    await watch.ask((MINE,))
    await watch.until(MINE, mine)
    await places.take(change(LOST, 1, subject, org_id))
    await rig.apply(checkpoint, run[3:])
    assert (await rig.hub.history.replay(MINE, epoch, mine, 0, 0)).frames == [], "a follower is told nothing of its end"
    await places.take(change(BACK, 2, subject, org_id))
    with pytest.raises(Refusal, match="retention_floor_breach"):
        await rig.hub.history.replay(MINE, epoch, mine, 0, 0)
    assert (await rig.hub.history.replay(f"user:{h.OTHER_USER}:runs", epoch, others, 0, 0)).frames == []
    while watch.watched[MINE].floor == 0:
        await watch.read()  # whoever follows it live is told, too
    watch.call.cancel()
    where, snapshot = (await rig.hub.history.describe(MINE)).state, await rig.hub.history.snapshot(MINE)
    assert where.floor == where.head == snapshot.state.seq
    (document,) = frame_pb2.DocumentSet.FromString(snapshot.state.payload).documents
    assert CODEC.decode(document).latest_seq == len(run)


async def test_who_has_lost_nothing_goes_on_when_a_place_is_given(rig: Rig) -> None:
    await rig.fill(1)
    await placed(rig).take(change(BACK, 1, h.USER, h.ORG))
    assert len(await rig.journal.page(MINE, 0, 100)) == 1


async def test_what_a_batch_still_leaves_out_is_in_the_list_of_who_comes_back_meanwhile(rig: Rig) -> None:
    """A batch that began before the place was back ends before anybody reads the list."""
    run = h.whole_run(1)
    checkpoint = await rig.apply(await rig.checkpoint(), run[:3])
    await placed(rig).take(change(LOST, 1, h.USER, h.ORG))
    async with transactions(rig.postgres, CODEC)() as batch:
        await batch.checkpoints.advance(checkpoint, checkpoint.position + 1)
        assert await batch.places.lost({(h.USER, h.ORG)})
        back = asyncio.create_task(placed(rig).take(change(BACK, 2, h.USER, h.ORG)))
        async with rig.postgres.acquire() as admin:
            await until_lock_waits(admin)
    await back
    assert not await is_lost(rig.postgres)


async def test_whoever_starts_a_first_run_while_the_org_comes_back_is_told_of_it(rig: Rig) -> None:
    """The batch with the run began before the org was back, and left the run out of the person's topic."""
    checkpoint, run = await rig.apply(await rig.checkpoint(), h.whole_run(1, org_id=h.OTHER_ORG)), h.whole_run(2)
    await placed(rig).take(change(LOST, 1, org_id=h.ORG))
    async with transactions(rig.postgres, CODEC)() as batch:
        await batch.checkpoints.advance(checkpoint, checkpoint.position + len(run))
        await rig.projection._write(batch, h.batch(0, checkpoint.position + 1, run).events)
        back = asyncio.create_task(placed(rig).take(change(BACK, 2, org_id=h.ORG)))
        async with rig.postgres.acquire() as admin:
            await until_lock_waits(admin)
    await back
    with pytest.raises(Refusal, match="retention_floor_breach"):
        await rig.hub.history.replay(MINE, rig.lineage.epoch, 1, 0, 0)


async def test_whoever_is_back_is_told_of_runs_of_which_the_first_was_left_out(rig: Rig, doors: Doors) -> None:
    """Nothing was ever said on the person's topic: whoever follows it is at its beginning."""
    places, run = placed(rig), h.whole_run(1)
    watch = Watch(doors.topics.WatchTopics(metadata=as_gateway()))
    await watch.ask((MINE,))
    await watch.until(MINE, 0)
    await places.take(change(LOST, 1, h.USER, h.ORG))
    await rig.apply(await rig.checkpoint(), run)
    assert (await rig.hub.history.describe(MINE)).state.head == 0
    await places.take(change(BACK, 2, h.USER, h.ORG))
    with pytest.raises(Refusal, match="retention_floor_breach"):
        await rig.hub.history.replay(MINE, rig.lineage.epoch, 0, 0, 0)
    while watch.watched[MINE].floor == 0:
        await watch.read()
    watch.call.cancel()
    (document,) = frame_pb2.DocumentSet.FromString((await rig.hub.history.snapshot(MINE)).state.payload).documents
    assert CODEC.decode(document).latest_seq == len(run)


class Forgetful:
    """A store that takes nothing at first."""

    def __init__(self, error: Exception) -> None:
        self.taken: list[int] = []
        self.away = 2
        self._error = error

    async def take(self, change: Revocation) -> bool:
        if self.away:
            self.away -= 1
            raise self._error
        self.taken.append(change.position)
        return True


async def test_nothing_is_told_before_it_is_remembered_who_lost_a_place_earlier() -> None:
    store, complete = Forgetful(Refusal("unavailable", "the database is away")), asyncio.Event()
    places = Places(store, PlaceLimits(retry_s=0, known_within_s=PATIENCE_S))
    known, running = asyncio.create_task(places.known(complete)), asyncio.create_task(places.run())
    try:
        places.on_revocation(change(LOST, 1, h.USER, h.ORG))
        await eventually(lambda: store.taken == [1])
        places.on_revocation(change(LOST, 2, h.OTHER_USER, h.ORG))
        store.away = 2
        complete.set()  # everything was heard, and the last of it can't be remembered yet
        await known
        assert store.taken == [1, 2]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_projector_works_without_control() -> None:
    places = Places(Forgetful(KeyError("never asked")), PlaceLimits(known_within_s=0.01))
    await places.known(asyncio.Event())


@pytest.mark.parametrize("error", [Refusal("unavailable", "the database is away"), KeyError("a defect")], ids=repr)
async def test_what_can_not_be_remembered_at_once_is_remembered_later(error: Exception) -> None:
    store = Forgetful(error)
    places = Places(store, PlaceLimits(retry_s=0))
    running = asyncio.create_task(places.run())
    try:
        places.on_revocation(change(LOST, 1, h.USER, h.ORG))
        places.on_revocation(change(PlaceChange.NONE, 2, h.USER, h.ORG))
        places.on_revocation(change(BACK, 3, h.USER, h.ORG))
        async with asyncio.timeout(PATIENCE_S):
            await eventually(lambda: sorted(store.taken) == [1, 3])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
