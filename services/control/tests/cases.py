"""The use cases over the real database, with a clock that tests move and codes that they see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from oa_base.clock import Clock
from oa_base.rate import Rate
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.config.shared import ClockSettings
from oa_platform.postgres.pool import Postgres
from oa_testing.postgres import Database, patient_settings
from services.control.api_keys.app.keys import Wanted
from services.control.audit.domain import Origin
from services.control.mail.domain.letters import Letter, Outcome
from services.control.policy.domain import Access, AnyPrincipal, StandingPrincipal
from services.control.service_accounts.domain import ServiceAccount
from services.control.sign_in.app import SignedIn, Started
from services.control.sign_in.limits import SignInLimits
from services.control.tests.harness import HMAC_KEY, new_id
from services.control.tokens.door import JwtSigner, JwtVerifier
from services.control.wiring import Dependencies, UseCases, transactions_on

ORIGIN = Origin("req_test", "192.0.2.1")
LIMITS = SignInLimits(
    per_address=Rate.every(timedelta(minutes=3), 20),
    per_address_and_network=Rate.every(timedelta(minutes=20), 3),
    per_known_device=Rate.every(timedelta(minutes=2), 5),
    per_network=Rate.every(timedelta(seconds=10), 60),
    guesses_per_network=Rate.every(timedelta(seconds=6), 100),
)
DELETE_GRACE = timedelta(days=30)


@dataclass
class Letters:
    """A carrier that keeps what it should send, or doesn't take it."""

    codes: dict[str, str] = field(default_factory=dict)
    sent: list[Letter] = field(default_factory=list)
    answer: Outcome = Outcome.SENT
    held: asyncio.Event | None = None
    begun: int = 0
    timeout: timedelta = timedelta(seconds=10)

    async def carry(self, letter: Letter) -> Outcome:
        """Keep it."""
        self.begun += 1
        if self.held:
            await self.held.wait()
        if self.answer is Outcome.SENT:
            if "code" in letter.facts:
                self.codes[letter.address] = letter.facts["code"]
            else:
                self.codes.setdefault(letter.address, "")
            self.sent.append(letter)
        return self.answer


@dataclass
class Runs:
    """Run id -> org, as runtime would say; None stands for a runtime that isn't there."""

    orgs: dict[str, str] | None = field(default_factory=dict)
    asked: int = 0
    takes_s: float = 0.0
    peak: int = 0
    _at_a_time: int = 0

    async def org_of_run(self, principal: StandingPrincipal, run_id: str) -> str | None:
        """Runtime's answer."""
        self.asked += 1
        self._at_a_time += 1
        self.peak = max(self.peak, self._at_a_time)
        await asyncio.sleep(self.takes_s)
        self._at_a_time -= 1
        if self.orgs is None:
            raise Refusal("unavailable", "no runtime")
        return self.orgs.get(run_id)


class Cases(UseCases):
    """One replica of control, without doors."""

    def __init__(self, dependencies: Dependencies, letters: Letters, runs: Runs) -> None:
        super().__init__(dependencies, LIMITS)
        self.transactions = dependencies.transactions
        self.clock = dependencies.clock
        self.origin = ORIGIN
        self.letters = letters
        self.runs = runs

    async def started(self, email: str, device_id: str, origin: Origin = ORIGIN) -> Started:
        """A code is asked for, and its mail has left."""
        started = await self.sign_in.start(email, device_id, origin)
        await self.delivery.deliver_due()
        return started

    async def signed_in(self, email: str = "ada@example.org", device_id: str = "", refresh_token: str = "") -> SignedIn:
        """A person signs in, bringing the refresh token of a session."""
        device_id = device_id or new_id("dev")
        started = await self.started(email, device_id)
        code = self.letters.codes[email]
        return await self.sign_in.verify(started.challenge_id, code, device_id, ORIGIN, refresh_token)

    async def principal(self, email: str = "ada@example.org") -> StandingPrincipal:
        """A person that has signed in, as the gate admits it."""
        signed_in = await self.signed_in(email)
        return await self.admitted(signed_in.tokens.access_token)

    async def account(
        self, person: StandingPrincipal, name: str = "script", scopes: Sequence[str] = (), ttl_s: int = 0
    ) -> tuple[ServiceAccount, str]:
        """A new service account, and its first key."""
        account, new = await self.service_accounts.create(person, Wanted(name, scopes, ttl_s), ORIGIN)
        return account, new.text

    async def admitted(self, access_token: str) -> StandingPrincipal:
        """The caller with this token."""
        return await self.let_in(f"Bearer {access_token}", AnyPrincipal())

    async def let_in(self, authorization: str, access: Access) -> StandingPrincipal:
        """The caller, who may do what needs the access. Raises Refusal."""
        principal = await self.gate.caller(authorization, access)
        assert principal is not None
        await self.gate.admit(principal, access, "m", ORIGIN)
        return principal


@asynccontextmanager
async def cases_on(
    database: Database,
    clock: Clock,
    key: SigningKey | None = None,
    letters: Letters | None = None,
    clocks: ClockSettings | None = None,
    **others: Any,
) -> AsyncIterator[Cases]:
    """A replica on the database. Give two of them the same key and letters. `others` are of `Dependencies`."""
    key, letters, runs = key or generate_key(), letters or Letters(), Runs()
    settings = patient_settings(database.control)
    async with Postgres(settings, "control-test") as postgres:
        dependencies = Dependencies(
            transactions=transactions_on(postgres, clocks or ClockSettings()),
            clock=clock,
            signer=JwtSigner(key),
            verifier=JwtVerifier(TokenVerifier(StaticKeys([key.public_key]), clock)),
            ownership=runs,
            carrier=letters,
            hmac_key=HMAC_KEY.encode(),
            delete_grace=DELETE_GRACE,
            **others,
        )
        yield Cases(dependencies, letters, runs)


async def reason_of(call: Awaitable[object]) -> str:
    """The reason for which a call is refused."""
    with pytest.raises(Refusal) as refused:
        await call
    return refused.value.reason
