"""Signing in is the same work for every address: nobody learns by time who has an account, is blocked or is expected.

What is counted is what takes time, so that no machine sways it: statements, keyed hashes, mails and records. How long
they take is measured by `benchmarks/sign_in_timing.py`.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Connection
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.policy.domain import Role
from services.control.sign_in.domain.challenge import MAX_GUESSES
from services.control.sign_in.domain.sign_up import SignUp, SignUpRule
from services.control.tests.cases import ORIGIN, Cases, cases_on
from services.control.tests.harness import new_id
from services.control.transactions.store import PostgresTransactions

KNOWN, BLOCKED, INVITED, UNKNOWN = (f"{who}@example.org" for who in ("known", "blocked", "invited", "unknown"))
EVERYBODY = (KNOWN, BLOCKED, INVITED, UNKNOWN)
_ASKS = frozenset({"execute", "fetch", "fetchrow", "fetchval"})


class Counted:
    """A connection that writes down each statement, with the number of its values."""

    def __init__(self, connection: Connection, done: list[str]) -> None:
        self._connection = connection
        self._done = done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)
        if name not in _ASKS:
            return method

        def ask(statement: str, *values: object) -> Any:
            self._done.append(f"{name} {len(values)} {' '.join(statement.split())}")
            return method(statement, *values)

        return ask


class Work:
    """What signing in does at one replica, in its order."""

    def __init__(self, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cases = cases
        self._done: list[str] = []
        hashed: Callable[..., bytes] = hmac.digest

        def digest(*arguments: Any) -> bytes:
            self._done.append("keyed hash")
            return hashed(*arguments)

        tables = cast("PostgresTransactions[Any]", cases.transactions)._tables
        monkeypatch.setattr(cases.transactions, "_tables", lambda connection: tables(self._counted(connection)))
        monkeypatch.setattr(hmac, "digest", digest)

    def _counted(self, connection: Connection) -> Any:
        return Counted(connection, self._done)

    async def start(self, email: str, device_id: str) -> tuple[list[str], str, list[int]]:
        """What is done for a start; the challenge, and the sizes of what is answered."""
        self._done.clear()
        started = await self._cases.sign_in.start(email, device_id, ORIGIN)
        done = list(self._done)
        seconds = int(started.resend_after.total_seconds())
        return done, started.challenge_id, [len(started.challenge_id), len(started.expires_at.isoformat()), seconds]

    async def deliver(self) -> tuple[list[str], int]:
        """What is done for the one mail that waits, and how much its letter says to programs."""
        self._done.clear()
        assert await self._cases.delivery.deliver_due() == 1
        return list(self._done), len(self._cases.letters.sent[-1].facts)

    async def guess(self, challenge_id: str, device_id: str) -> tuple[list[str], str]:
        """What is done for a wrong code, and the refusal."""
        self._done.clear()
        with pytest.raises(Refusal) as refused:
            await self._cases.sign_in.verify(challenge_id, "not the code", device_id, ORIGIN)
        return list(self._done), f"{refused.value.reason} {refused.value.message} {refused.value.metadata}"


@pytest_asyncio.fixture(params=list(SignUp))
async def site(request: Any, control_database: Database, clock: FakeClock) -> AsyncIterator[Cases]:
    """Two people with accounts, one of them blocked; and one who is invited."""
    async with cases_on(control_database, clock) as open_site:
        owner = await open_site.principal(KNOWN)
        await open_site.signed_in(BLOCKED)
        org_id = (await open_site.orgs.create(owner, "team", ORIGIN)).org.org_id
        await open_site.invitations.create(owner, org_id, INVITED, Role.MEMBER, ORIGIN)
        await open_site.blocks.block(BLOCKED, ORIGIN)
        await open_site.delivery.deliver_due()
    await clock.advance(3600)
    rule = SignUpRule(request.param, frozenset({"corp.example"}))
    async with cases_on(control_database, clock, sign_up=rule) as made:
        yield made


async def test_a_stranger_causes_the_same_work_for_every_address(
    site: Cases, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.execute("DELETE FROM control.mails")
    work, starts, guesses = Work(site, monkeypatch), [], []
    for email in EVERYBODY:
        device_id = new_id("dev")
        done, challenge_id, answer = await work.start(email, device_id)
        starts.append((done, answer))
        guesses.append([await work.guess(challenge_id, device_id) for _ in range(MAX_GUESSES)])
    assert all(one == starts[0] for one in starts)
    assert all(one == guesses[0] for one in guesses)
    assert starts[0][0].count("keyed hash") == 3, "the code, its stored form, the address on record"
    assert guesses[0][0][0].count("keyed hash") == 2, "the stored form, the address on record"
    assert sum("INSERT INTO control.mails" in statement for statement in starts[0][0]) == 1
    mails = await admin.fetch("SELECT address FROM control.mails ORDER BY address")
    assert [row["address"] for row in mails] == sorted(EVERYBODY)


async def test_letters_with_a_code_and_without_are_the_same_work(
    site: Cases, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They leave while the stranger's guess is looked at."""
    await admin.execute("DELETE FROM control.mails")
    work, delivered = Work(site, monkeypatch), []
    for email in EVERYBODY:
        await work.start(email, new_id("dev"))
        delivered.append(await work.deliver())
    assert all(one == delivered[0] for one in delivered)
    assert delivered[0][0].count("keyed hash") == 1


async def test_who_brings_no_challenge_causes_the_same_work_whatever_it_is(
    site: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there, and one of each address that another device began."""
    work = Work(site, monkeypatch)
    seen = [await work.guess(new_id("chl"), new_id("dev"))]
    begun = [(await work.start(email, new_id("dev")))[1] for email in EVERYBODY]
    foreign = [await work.guess(challenge_id, new_id("dev")) for challenge_id in begun]
    assert all(one == foreign[0] for one in foreign)
    assert seen[0][0] == foreign[0][0][: len(seen[0][0])], "an id that nobody has is known by nothing but luck"
