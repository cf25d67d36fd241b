"""Whoever is signed in or has a new key without having done it, hears of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.api_keys.app.keys import NewKey, Wanted
from services.control.mail.domain.letters import Outcome
from services.control.notices.limits import NOTICE_TTL
from services.control.policy.domain import StandingPrincipal
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id

ADA, BOB = "ada@example.org", "bob@example.org"


async def told(cases: Cases, address: str = ADA) -> list[tuple[str, str]]:
    """What each notice to the address was, and what about, once all have left."""
    await cases.delivery.deliver_due()
    facts = [letter.facts for letter in cases.letters.sent if letter.address == address]
    return [(each["notice"], each["about"]) for each in facts if "notice" in each]


async def test_a_person_hears_of_a_device_that_is_new_to_the_account(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in(ADA)
    assert await told(cases) == [], "the account is as new as the device"
    second = await cases.signed_in(ADA)
    of_second = ("new_device", second.session.session_id)
    assert await told(cases) == [of_second]
    await clock.advance(600)
    for device in (first.session.device_id, second.session.device_id):
        await cases.signed_in(ADA, device)
    assert await told(cases) == [of_second]


async def test_a_device_of_another_account_is_new(cases: Cases) -> None:
    device = (await cases.signed_in(BOB)).session.device_id
    await cases.signed_in(ADA)
    session = (await cases.signed_in(ADA, device)).session
    assert await told(cases) == [("new_device", session.session_id)]
    assert await told(cases, BOB) == []


async def test_a_session_that_goes_on_is_nothing_new(cases: Cases, clock: FakeClock) -> None:
    await cases.signed_in(ADA)
    second = await cases.signed_in(ADA)
    before = await told(cases)
    await clock.advance(600)
    again = await cases.signed_in(ADA, second.session.device_id, second.tokens.refresh_token)
    assert again.session.session_id == second.session.session_id
    assert await told(cases) == before


async def test_a_device_whose_session_ended_for_safety_is_new_again(cases: Cases, clock: FakeClock) -> None:
    first = await cases.signed_in(ADA)
    async with cases.transactions.begin() as tx:
        await cases.sessions.end_for_operator(tx, first.user.user_id, first.session.session_id, ORIGIN)
    await clock.advance(600)
    again = await cases.signed_in(ADA, first.session.device_id)
    assert await told(cases) == [("new_device", again.session.session_id)]


async def test_the_letter_says_how_to_end_what_it_tells_of(cases: Cases, clock: FakeClock) -> None:
    await cases.signed_in(ADA)
    second = await cases.signed_in(ADA)
    at = clock.now()
    cases.letters.answer = Outcome.LATER
    await cases.delivery.deliver_due()
    await clock.advance(3_600)
    cases.letters.answer = Outcome.SENT
    await cases.delivery.deliver_due()
    letter = cases.letters.sent[-1]
    assert f"on {at:%Y-%m-%d} at {at:%H:%M} UTC" in letter.text, "when it happened, not when the letter left"
    assert f"oa session revoke {second.session.session_id}\n" in letter.text
    assert f"oa login --email {ADA}\n" in letter.text


async def test_a_notice_that_could_not_leave_in_time_is_dropped(cases: Cases, clock: FakeClock) -> None:
    await cases.signed_in(ADA)
    await cases.signed_in(ADA)
    await clock.advance(NOTICE_TTL / timedelta(seconds=1))
    assert await told(cases) == []


async def _created(cases: Cases, ada: StandingPrincipal, account: str) -> NewKey:
    return await cases.api_keys.create(ada, account, Wanted("laptop", ttl_s=86_400), ORIGIN)


async def test_a_person_hears_of_each_key_of_their_own(cases: Cases) -> None:
    ada = await cases.principal(ADA)
    new = await _created(cases, ada, "")
    rotated, _ = await cases.api_keys.rotate(ada, new.key.api_key_id, 60, ORIGIN)
    # They leave side by side, in any order.
    assert sorted(await told(cases)) == sorted(("key_created", each.key.api_key_id) for each in (new, rotated))
    [letter] = [each for each in cases.letters.sent if each.facts.get("about") == rotated.key.api_key_id]
    assert f"oa key revoke {rotated.key.api_key_id}\n" in letter.text
    assert rotated.text not in letter.text
    assert "laptop" not in letter.text, "nobody writes to a person by the name of a key"


async def test_a_key_of_a_service_account_is_no_persons(cases: Cases) -> None:
    ada = await cases.principal(ADA)
    account, _ = await cases.account(ada)
    await _created(cases, ada, account.service_account_id)
    assert await told(cases) == []


async def test_what_was_refused_is_told_to_nobody(cases: Cases) -> None:
    ada = await cases.principal(ADA)
    with pytest.raises(Refusal):
        await cases.api_keys.create(ada, "", Wanted("x", ["no.such"]), ORIGIN)
    started = await cases.started(ADA, new_id("dev"))
    with pytest.raises(Refusal):
        await cases.sign_in.verify(started.challenge_id, "000000x", new_id("dev"), ORIGIN)
    assert await told(cases) == []
