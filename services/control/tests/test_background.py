"""What control does in the background survives whatever goes wrong with it: people are let in meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import structlog

from oa_platform.auth.keys import generate_key
from oa_testing.clock import FakeClock
from oa_testing.waiting import eventually
from services.control.housekeeping.app import keep_sweeping
from services.control.revocations.app import RevocationFeed
from services.control.revocations.limits import RevocationLimits
from services.control.routes.app.book import RouteBook
from services.control.routes.app.canaries import Canaries
from services.control.routes.app.operators import Operators
from services.control.routes.domain.groups import Group, Side
from services.control.signing_keys.app import SigningKeys
from services.control.signing_keys.door import SealedKeys
from services.control.signing_keys.limits import SigningKeyLimits
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import HMAC_KEY

SOON_S = 0.02
Logs = list[Any]
Background = Coroutine[Any, Any, None]


@asynccontextmanager
async def in_background(work: Background) -> AsyncIterator[tuple[asyncio.Task[None], Logs]]:
    """The work under way, and what it logs."""
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(work)
        try:
            yield task, logs
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def failures(logs: Logs, event: str) -> int:
    return sum(line["event"] == event and line["reason"].endswith("Error") for line in logs)


async def test_a_role_that_lost_a_right_stops_one_sweep_and_neither_the_others_nor_control(
    cases: Cases, admin: asyncpg.Connection[asyncpg.Record], clock: FakeClock
) -> None:
    await admin.execute("REVOKE DELETE ON control.challenges FROM control_app")
    await admin.execute("INSERT INTO control.provider_sign_ins VALUES ('psi_1', 'oidc', 'd', 'u', 'epoch')")
    async with in_background(keep_sweeping(*cases.sweeps, interval_s=SOON_S)) as (task, logs):
        await eventually(lambda: failures(logs, "sweep_failed") >= 2 or task.done())
        assert not task.done()
    assert {(line["sweep"], line["reason"]) for line in logs} == {("SignIn.sweep", "InsufficientPrivilegeError")}
    assert not await admin.fetchval("SELECT count(*) FROM control.provider_sign_ins"), "the next ones sweep"


def of_uses(cases: Cases) -> Background:
    cases.api_keys.uses.note("apk_1", cases.clock.now())
    return cases.api_keys.uses.keep_writing(SOON_S)


def of_refusals(cases: Cases) -> Background:
    cases.refused.note("192.0.2.1", "invalid_api_key")
    return cases.refused.keep_writing(SOON_S)


async def of_keys(cases: Cases) -> Background:
    limits = SigningKeyLimits(look_interval_s=SOON_S)
    own = generate_key()
    keys = SigningKeys(
        cases.transactions, cases.clock, SealedKeys(HMAC_KEY.encode()), own, [own.public_key], generate_key, limits
    )
    await keys.start()
    return keys.run()


async def of_routes(cases: Cases) -> Background:
    book = RouteBook(cases.transactions, cases.clock)
    await book.start()
    book.word()
    return book.run()


async def of_canaries(cases: Cases) -> Background:
    book = RouteBook(cases.transactions, cases.clock)
    sides = frozenset(Side)
    operators = Operators(transactions=cases.transactions, clock=cases.clock, sides=sides, hmac_key=b"key")
    await operators.set_group(Group("app", ("/app",), None, 0), ORIGIN)
    await operators.start_canary("app", 0, 0, ORIGIN)
    await book.start()
    return Canaries(cases.transactions, cases.clock, book, SOON_S).run()


async def of_revocations(cases: Cases) -> Background:
    feed = RevocationFeed(cases.transactions, cases.clock, RevocationLimits(retry_s=SOON_S))
    await feed.start()
    feed.word(1)
    return feed.run()


async def at_once(work: Background) -> Background:
    return work


@pytest.mark.parametrize(
    ("begin", "table", "event"),
    [
        (lambda cases: at_once(of_uses(cases)), "api_keys", "uses_of_keys_wait"),
        (lambda cases: at_once(of_refusals(cases)), "audit_events", "audit_of_refusals_waits"),
        (of_keys, "signing_keys", "signing_keys_not_read"),
        (of_routes, "route_versions", "routes_not_read"),
        (of_canaries, "canaries", "canaries_wait"),
        (of_revocations, "revocations", "revocations_not_read"),
    ],
    ids=["uses", "refusals", "keys", "routes", "canaries", "revocations"],
)
async def test_a_table_that_is_away_is_asked_again(
    cases: Cases,
    admin: asyncpg.Connection[asyncpg.Record],
    begin: Callable[[Cases], Awaitable[Background]],
    table: str,
    event: str,
) -> None:
    work = await begin(cases)
    await admin.execute(f"ALTER TABLE control.{table} RENAME TO away")
    async with in_background(work) as (task, logs):
        await eventually(lambda: failures(logs, event) >= 2 or task.done())
        assert not task.done()
