"""What strangers can do to a person whose address they know: neither keep it from signing in, nor flood its mailbox."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oa_base.clock import ns_of
from oa_base.rate import take
from oa_base.refusal import Refusal
from oa_platform.config.loading import load
from oa_testing.clock import FakeClock
from services.control.audit.domain import Origin
from services.control.config import SignInSettings
from services.control.sign_in.domain.challenge import MAX_GUESSES, RESEND_AFTER
from services.control.sign_in.domain.shares import Share, shares_of
from services.control.sign_in.limits import SignInLimits
from services.control.tests.cases import LIMITS, Cases
from services.control.tests.harness import new_id

OWNER = "ada@example.org"
HOME = "192.0.2.1"
SECURITY_PAGE = Path(__file__).resolve().parents[4] / "docs" / "security.md"
HOUR = timedelta(hours=1)
MAX_ASKED_A_MINUTE = 30
"""More are refused all the same, and only take the test's time."""


@dataclass
class Site:
    """The limits of a site, on virtual time; what the store and the use case make of them is tested beside this."""

    limits: SignInLimits = LIMITS
    full_at: dict[str, int] = field(default_factory=dict)
    newest: dict[str, datetime] = field(default_factory=dict)
    mails: list[datetime] = field(default_factory=list)

    def start(self, device: str, network: str, now: datetime, *, known: bool = False) -> bool:
        """Whether a device gets a code."""
        shares = shares_of(self.limits, OWNER, device, network, known_device=known)
        taken = {share.bucket: self._take(share, now) for share in shares}
        resend = device in self.newest and now < self.newest[device] + RESEND_AFTER
        if resend or any(one.wait_ns for one in taken.values()):
            return False
        self.full_at |= {bucket: one.full_at_ns for bucket, one in taken.items()}
        self.newest[device] = now
        self.mails.append(now)
        return True

    def _take(self, share: Share, now: datetime) -> Any:
        return take(share.rate, self.full_at.get(share.bucket, 0), ns_of(now))


def attacked(seed: int, networks: int, *, known: bool) -> tuple[int, Site]:
    """Strangers with so many networks, and any number of devices, ask for codes for the owner's address for some hours;
    then the owner asks. Returns how often it had to, a minute apart, and the site."""
    chance, site, now = random.Random(seed), Site(), datetime(2026, 1, 1, tzinfo=UTC)
    owner_comes = now + chance.uniform(0, 5) * HOUR
    tries = 0
    while True:
        for _ in range(chance.randint(0, min(3 * networks, MAX_ASKED_A_MINUTE))):
            site.start(f"dev_{chance.random()}", f"198.51.100.{chance.randrange(networks)}", now)
        if now >= owner_comes:
            tries += 1
            if site.start("dev_owner", HOME, now, known=known) or tries == 500:
                return tries, site
        now += timedelta(seconds=60)


def networks_bound(limits: SignInLimits = LIMITS) -> int:
    """How many networks of strangers leave room for the owner, by the defaults."""
    by_burst = (limits.per_address.burst - 1) // limits.per_address_and_network.burst
    by_rate = (limits.per_address_and_network.period_ns - 1) // limits.per_address.period_ns
    return min(by_burst, by_rate)


def test_the_tests_have_the_limits_of_an_installation() -> None:
    assert load(SignInSettings, {}).limits() == LIMITS
    assert networks_bound() == 6


@pytest.mark.parametrize("networks", [1, 6, 50, 1_000])
def test_on_a_device_of_its_own_the_owner_gets_a_code_at_once_whatever_strangers_do(networks: int) -> None:
    for seed in range(20):
        assert attacked(seed, networks, known=True)[0] == 1


def test_on_a_new_device_the_owner_gets_a_code_at_once_while_strangers_have_few_networks() -> None:
    for networks in range(1, networks_bound() + 1):
        for seed in range(20):
            assert attacked(seed, networks, known=False)[0] == 1, (networks, seed)


def test_with_more_networks_strangers_are_in_the_way_of_a_new_device() -> None:
    # Says that the model bites, and where the promise ends.
    assert max(attacked(seed, 60, known=False)[0] for seed in range(20)) > 1


@pytest.mark.parametrize("networks", [1, 6, 1_000])
def test_strangers_do_not_flood_a_mailbox(networks: int) -> None:
    rate = LIMITS.per_address
    for seed in range(10):
        mails = attacked(seed, networks, known=True)[1].mails
        for first in range(len(mails)):
            within = sum(1 for at in mails[first:] if at < mails[first] + HOUR)
            # One more for the owner's own.
            assert within <= rate.burst + HOUR / timedelta(microseconds=rate.period_ns / 1000) + 2


def guesses_by_hour(limits: SignInLimits, hours: int) -> list[int]:
    """How often strangers guess at the codes of one account in each hour, if each code is asked for from a network that
    has asked for none."""
    site, begin = Site(limits), datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(hours * 360):
        site.start(f"dev_{number}", f"network {number}", begin + number * timedelta(seconds=10))
    found = Counter((at - begin) // HOUR for at in site.mails)
    return [found[hour] * MAX_GUESSES for hour in range(hours)]


def test_an_account_is_guessed_at_as_often_as_the_security_page_says() -> None:
    first, *later = guesses_by_hour(LIMITS, 3)
    assert 190 < first <= 200
    assert later == [100, 100]
    as_asvs = {"OA_SIGN_IN_ADDRESS_BURST": "10", "OA_SIGN_IN_ADDRESS_PERIOD_S": "360"}
    stricter = load(SignInSettings, as_asvs).limits()
    assert max(guesses_by_hour(stricter, 3)) <= 100
    assert (networks_bound(), networks_bound(stricter)) == (6, 3)
    (line,) = [line for line in SECURITY_PAGE.read_text("utf-8").splitlines() if line.startswith("| 2.2.1 ")]
    for said in ("200 guesses in the first hour", "100 in each later one", *map("=".join, as_asvs.items())):
        assert said in line


async def test_over_the_real_tables_the_owner_signs_in_amid_strangers(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    device = new_id("dev")
    await cases.signed_in(OWNER, device)
    chance = random.Random(7)
    for turn in range(12):
        for _ in range(10):
            stranger = Origin("req", f"198.51.100.{chance.randrange(200)}")
            refused = await asyncio.gather(cases.started(OWNER, new_id("dev"), stranger), return_exceptions=True)
            assert not isinstance(refused[0], Refusal) or refused[0].reason == "rate_limited"
        if turn == 11:
            live = await admin.fetchval("SELECT count(*) FROM control.challenges WHERE ended IS NULL")
            assert live <= LIMITS.per_address.burst + 5
            mine = await cases.started(OWNER, device)
            code = cases.letters.codes[OWNER]
            signed_in = await cases.sign_in.verify(mine.challenge_id, code, device, cases.origin)
            assert not signed_in.new_user
        await clock.advance(60)
