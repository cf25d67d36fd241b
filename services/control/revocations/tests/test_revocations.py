"""What is revoked has one order, and everybody who follows gets all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from oa_base.identity import REVOCATION_KEPT_S, TokenKind
from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database, patient_settings
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.control.v1 import revocation_service_pb2
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.revocations.app import Page, RevocationFeed
from services.control.revocations.domain import PlaceChange, Recorded, Revocation
from services.control.revocations.door import message_of
from services.control.revocations.limits import RevocationLimits
from services.control.revocations.store import CHANNEL, listener
from services.control.tests.cases import ORIGIN, Cases, cases_on
from services.control.tests.harness import new_id
from services.control.wiring import MIGRATIONS

LIMITS = RevocationLimits(ring_items=8, page_items=3, look_interval_s=0.2, alive_interval_s=0.2, retry_s=0.05)


@asynccontextmanager
async def followed(cases: Cases, database: Database, clock: FakeClock) -> AsyncIterator[RevocationFeed]:
    """The feed of a replica that follows the database, for a block."""
    feed = RevocationFeed(cases.transactions, clock, LIMITS)
    await feed.start()
    hearing = listener(patient_settings(database.control), feed, LIMITS.look_interval_s)
    tasks = [asyncio.create_task(feed.run()), asyncio.create_task(hearing.run())]
    try:
        yield feed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def taken(feed: RevocationFeed, after: int, up_to: int) -> list[Recorded]:
    """What a follower gets until it has `up_to`."""
    items: list[Recorded] = []
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(feed.follow(after)) as pages:
        async for page in pages:
            items += page.items
            if page.position >= up_to:
                return items
    raise AssertionError("a follower's pages have no end")


async def revoke(cases: Cases, count: int) -> list[str]:
    """So many service accounts, one after the other; their ids."""
    ids = [new_id("sva") for _ in range(count)]
    for one in ids:
        async with cases.transactions.begin() as tx:
            await tx.revocations.add(Revocation.of_service_account(one), cases.clock.now())
    return ids


def subjects(items: Sequence[Recorded]) -> list[str]:
    return [one.revocation.subject for one in items]


async def test_every_end_of_a_session_and_of_an_account_is_told_with_its_reason(cases: Cases) -> None:
    device = new_id("dev")
    first = await cases.signed_in(device_id=device)
    second = await cases.signed_in(device_id=device)  # replaces the first
    thief = second.tokens.refresh_token
    newer = await cases.sessions.refresh(thief, device, ORIGIN)
    await cases.admitted(newer.access_token)
    with pytest.raises(Refusal, match="token_replay"):
        await cases.sessions.refresh(thief, device, ORIGIN)
    third = await cases.principal()
    await cases.sessions.revoke(third, "", ORIGIN)
    await cases.sessions.revoke(await cases.principal(), third.session_id, ORIGIN)  # has ended already
    owner = await cases.principal("grace@example.org")
    account, _ = await cases.account(owner, "ci")
    for _ in range(2):
        await cases.service_accounts.revoke(owner, account.service_account_id, ORIGIN)

    async with cases.transactions.autocommit() as tx:
        rows = await tx.revocations.after(0, 100)
    told = [(one.position, one.revocation) for one in rows]
    assert told == [
        (1, Revocation("device_replaced", session_id=first.session.session_id)),
        (2, Revocation("token_replay", session_id=second.session.session_id)),
        (3, Revocation("user_requested", session_id=third.session_id)),
        (4, Revocation("account_revoked", subject=account.service_account_id)),
    ]


async def test_positions_have_no_hole_and_the_order_of_the_commits_on_every_replica(
    cases: Cases, control_database: Database, clock: FakeClock
) -> None:
    async def one(by: Cases, number: int) -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with by.transactions.begin() as tx:
                await tx.revocations.add(Revocation.of_service_account(f"sva_{number}"), clock.now())
                await asyncio.sleep(0)
                if number % 5 == 0:
                    raise ZeroDivisionError  # rolled back: its position goes to the next one

    async with (
        cases_on(control_database, clock) as other,
        followed(cases, control_database, clock) as here,
        followed(other, control_database, clock) as there,
    ):
        following = [asyncio.create_task(taken(feed, 0, 40)) for feed in (here, there)]
        await asyncio.gather(*(one((cases, other)[number % 2], number) for number in range(50)))
        seen_here, seen_there = await asyncio.gather(*following)
    assert [one.position for one in seen_here] == list(range(1, 41))
    assert seen_here == seen_there
    assert set(subjects(seen_here)) == {f"sva_{number}" for number in range(50) if number % 5}


async def test_who_comes_later_gets_what_is_no_longer_in_memory_too(
    cases: Cases, control_database: Database, clock: FakeClock
) -> None:
    before = await revoke(cases, 5)
    async with followed(cases, control_database, clock) as feed:
        after = await revoke(cases, 3 * LIMITS.ring_items)
        everything = before + after
        for position in (0, 2, 5, 20):
            items = await taken(feed, position, len(everything))
            assert subjects(items) == everything[position:]
            assert [one.position for one in items] == list(range(position + 1, len(everything) + 1))


async def test_a_stream_without_news_says_that_it_lives_and_that_it_has_everything(
    cases: Cases, control_database: Database, clock: FakeClock
) -> None:
    await revoke(cases, 4)
    async with followed(cases, control_database, clock) as feed, contextlib.aclosing(feed.follow(0)) as pages:
        async with asyncio.timeout(PATIENCE_S):
            seen = [await anext(pages) for _ in range(4)]
    assert [(len(page.items), page.position, page.caught_up) for page in seen] == [
        (3, 3, False),
        (1, 4, True),
        (0, 4, True),
        (0, 4, True),
    ]


async def test_without_the_database_nobody_is_told_that_he_has_everything(cases: Cases, clock: FakeClock) -> None:
    """Who follows takes each sign of life for fresh knowledge."""
    feed = RevocationFeed(cases.transactions, clock, LIMITS)
    await revoke(cases, 4)
    feed.looked(0, 4)
    reading = asyncio.create_task(feed.run())
    await eventually(lambda: feed.head == 4)
    await clock.advance(LIMITS.alive_interval_s + 0.1)
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(feed.follow(0)) as pages:
        seen = [await anext(pages) for _ in range(2)]
        assert [(page.position, page.caught_up) for page in seen] == [(3, False), (4, False)]
        waiting = asyncio.ensure_future(anext(pages))
        for _ in range(3):
            await asyncio.sleep(LIMITS.alive_interval_s)
            assert not waiting.done()
        feed.looked(4, 4)
        assert await waiting == Page([], 4, caught_up=True)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_streams_are_limited(cases: Cases, clock: FakeClock) -> None:
    feed = RevocationFeed(cases.transactions, clock, replace(LIMITS, max_streams=2))
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(2):
            await anext(await streams.enter_async_context(contextlib.aclosing(feed.follow(0))))
        with pytest.raises(Refusal, match="overloaded"):
            await anext(feed.follow(0))
    async with contextlib.aclosing(feed.follow(0)) as pages:
        assert (await anext(pages)).caught_up


async def test_word_that_got_lost_is_made_up_for_by_a_look(
    cases: Cases, control_database: Database, clock: FakeClock, admin: Any
) -> None:
    async with followed(cases, control_database, clock) as feed:
        following = asyncio.create_task(taken(feed, 0, 2))
        await admin.execute("UPDATE control.revocation_head SET position = 2")
        await admin.execute(
            "INSERT INTO control.revocations "
            "SELECT n, '', 'sva_' || n, '', NULL, now(), 'x' FROM generate_series(1, 2) n"
        )
        assert subjects(await following) == ["sva_1", "sva_2"]


async def test_what_another_role_says_on_the_channel_changes_nothing(
    cases: Cases, control_database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, words = list[dict[str, Any]](), list[int]()
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    feed = RevocationFeed(cases.transactions, clock, LIMITS)
    hearing = listener(patient_settings(control_database.control), feed, PATIENCE_S)
    task = asyncio.create_task(hearing.run())
    await eventually(lambda: hearing.connected)
    monkeypatch.setattr(feed, "word", words.append)
    stranger = await asyncpg.connect(control_database.projector)
    for text in ("", "x", "-1", "9" * 5_000, str(2**63), "7"):
        await stranger.execute("SELECT pg_notify($1, $2)", CHANNEL, text)
    await stranger.close()
    await eventually(lambda: 7 in words)
    assert (words, failures) == ([7], [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_broken_listener_and_a_database_that_was_away_lose_nothing(
    cases: Cases, control_database: Database, clock: FakeClock, admin: Any
) -> None:
    end = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'control_app'"""
    async with followed(cases, control_database, clock) as feed:
        following = asyncio.create_task(taken(feed, 0, 6))
        expected = await revoke(cases, 3)
        await admin.fetchval(end)
        async with asyncio.timeout(PATIENCE_S):
            while len(expected) < 6:
                with contextlib.suppress(Refusal, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    expected += await revoke(cases, 1)
        assert subjects(await following) == expected


async def test_a_database_that_went_back_gives_its_own_order_to_everybody(
    cases: Cases, control_database: Database, clock: FakeClock, admin: Any
) -> None:
    kept = (await revoke(cases, 5))[:2]
    async with followed(cases, control_database, clock) as feed:
        await admin.execute("DELETE FROM control.revocations WHERE position > 2")
        await admin.execute("UPDATE control.revocation_head SET position = 2")
        await eventually(lambda: feed.head == 2)
        new = await revoke(cases, 1)
        pages: list[Page] = []
        async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(feed.follow(5)) as following:
            async for page in following:
                pages.append(page)
                if page.position == 3:
                    break
    assert subjects([one for page in pages for one in page.items]) == kept + new


async def test_what_ends_no_token_any_more_is_removed_and_its_position_never_comes_back(
    cases: Cases, control_database: Database, clock: FakeClock, admin: Any
) -> None:
    assert max(kind.max_age_s for kind in TokenKind) < REVOCATION_KEPT_S
    feed = RevocationFeed(cases.transactions, clock, LIMITS)
    await revoke(cases, 2)
    await clock.advance(60)
    young = await revoke(cases, 1)
    await clock.advance(REVOCATION_KEPT_S - 30)
    await feed.sweep()
    async with cases.transactions.autocommit() as tx:
        assert subjects(await tx.revocations.after(0, 10)) == young
    await clock.advance(60)
    await feed.sweep()
    await revoke(cases, 1)
    async with cases.transactions.autocommit() as tx:
        assert [one.position for one in await tx.revocations.after(0, 10)] == [4]

    await admin.execute(
        "INSERT INTO control.revocations "
        "SELECT n + 10, '', 'sva', '', NULL, 'epoch', 'x' FROM generate_series(1, $1) n",
        MAX_SWEPT_ROWS + 3,
    )
    for left in (4, 1):
        await feed.sweep()
        assert await admin.fetchval("SELECT count(*) FROM control.revocations") == left


async def test_places_that_were_lost_before_there_was_word_of_it_are_told(cases: Cases, admin: Any) -> None:
    """By the migration that brings the word: here, once more on a site that has lost some."""
    ada = await cases.principal()
    org = (await cases.orgs.create(ada, "team", ORIGIN)).org
    await cases.orgs.delete(ada, org.org_id, ORIGIN)
    account, _ = await cases.account(ada)
    await cases.blocks.block(account.service_account_id, ORIGIN)
    await cases.blocks.block("ada@example.org", ORIGIN)
    await admin.execute("DELETE FROM control.revocations")
    head = await admin.fetchval("SELECT position FROM control.revocation_head")
    _, found, rest = (MIGRATIONS / "0010_places.sql").read_text("utf-8").partition("\nWITH lost AS")
    await admin.execute(found + rest)
    async with cases.transactions.autocommit() as tx:
        told = await tx.revocations.after(0, 10)
        assert await tx.revocations.head() == head + 3
    assert [one.position for one in told] == [head + 1, head + 2, head + 3]
    assert {one.revocation.place_change for one in told} == {PlaceChange.LOST}
    lost = {(one.revocation.subject, one.revocation.org_id) for one in told}
    assert lost == {(ada.subject, ""), (account.service_account_id, ""), ("", org.org_id)}


def test_a_place_that_is_back_ends_no_token_on_the_wire() -> None:
    """Its time is the epoch, which is all zeros: it has to be there, or the revocation would end every token."""
    for revocation in (
        Revocation.of_unblocked("usr_1"),
        Revocation.of_place("usr_1", "org_1", "x"),
        Revocation.of_restored_org("org_1"),
    ):
        sent = message_of(Recorded(1, datetime.now(UTC), revocation)).SerializeToString()
        got = revocation_service_pb2.Revocation.FromString(sent)
        assert got.HasField("issued_before")
        assert (got.issued_before.ToNanoseconds(), got.place_change) == (0, revocation_service_pb2.PLACE_CHANGE_BACK)
