"""Signing in over the real database: concurrency, limits, and what is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

import asyncpg
import pytest

from oa_base.clock import SECOND_NS
from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.audit.domain import Origin, address_digest
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.mail.domain.letters import Outcome
from services.control.sign_in.app import SignedIn, Started
from services.control.sign_in.domain.challenge import code_of
from services.control.tests.cases import LIMITS, ORIGIN, Cases, cases_on
from services.control.tests.harness import HMAC_KEY, new_id

EMAIL = "ada@example.org"
DEVICE = new_id("dev")


async def outcomes(calls: Sequence[Awaitable[Any]]) -> Counter[str]:
    """How concurrent calls ended: "ok" or the reason; anything but a Refusal fails the test."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Refusal):
            raise result
    return Counter(result.reason if isinstance(result, Refusal) else "ok" for result in results)


async def started(cases: Cases, email: str = EMAIL, network: str = "192.0.2.1", device_id: str = DEVICE) -> Started:
    return await cases.started(email, device_id, Origin("req", network))


async def guess(cases: Cases, challenge_id: str, code: str, network: str = ORIGIN.network) -> SignedIn:
    return await cases.sign_in.verify(challenge_id, code, DEVICE, Origin("req", network))


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**8:08d}"


async def test_thirty_guesses_at_once_are_five_guesses(cases: Cases, admin: Any) -> None:
    challenge = await started(cases)
    code = cases.letters.codes[EMAIL]
    # From many networks: from one, its own limit would make them come one after the other.
    guesses = [guess(cases, challenge.challenge_id, wrong(code), f"192.0.2.{number}") for number in range(30)]
    found = await outcomes(guesses)
    assert found == {"code_incorrect": 4, "too_many_guesses": 26}
    row = await admin.fetchrow("SELECT guesses, ended FROM control.challenges")
    assert tuple(row) == (5, "exhausted")
    with pytest.raises(Refusal, match="too_many_guesses"):
        await guess(cases, challenge.challenge_id, code)


async def test_the_right_code_ten_times_at_once_is_one_session(cases: Cases, admin: Any) -> None:
    challenge = await started(cases)
    code = cases.letters.codes[EMAIL]
    guesses = [guess(cases, challenge.challenge_id, code, f"192.0.2.{number}") for number in range(10)]
    found = await outcomes(guesses)
    assert found == {"ok": 1, "challenge_expired": 9}
    for table in ("users", "orgs", "memberships", "sessions"):
        assert await admin.fetchval(f"SELECT count(*) FROM control.{table}") == 1, table  # noqa: S608 - constants


async def test_ten_starts_at_once_send_one_code(cases: Cases, admin: Any) -> None:
    found = await outcomes([started(cases) for _ in range(10)])
    assert found == {"ok": 1, "rate_limited": 9}
    assert await admin.fetchval("SELECT count(*) FROM control.challenges WHERE ended IS NULL") == 1


async def test_starts_and_right_guesses_at_once_never_wait_for_each_other_in_a_ring(
    cases: Cases, clock: FakeClock
) -> None:
    # Postgres ends a deadlock by killing one side, which would show as `unavailable`.
    for _ in range(5):
        challenge = await started(cases)
        code = cases.letters.codes[EMAIL]
        calls: list[Awaitable[Any]] = [guess(cases, challenge.challenge_id, code) for _ in range(4)]
        calls += [started(cases) for _ in range(4)]
        found = await outcomes(calls)
        assert set(found) <= {"ok", "rate_limited", "challenge_expired"}
        await clock.advance(61)


async def test_a_new_code_replaces_the_one_before(cases: Cases, clock: FakeClock) -> None:
    first = await started(cases)
    old_code = cases.letters.codes[EMAIL]
    with pytest.raises(Refusal) as refused:
        await started(cases)
    assert refused.value.retry_after_ms == 60_000
    await clock.advance(60)
    second = await started(cases)
    with pytest.raises(Refusal, match="challenge_expired"):
        await guess(cases, first.challenge_id, old_code)
    assert (await guess(cases, second.challenge_id, cases.letters.codes[EMAIL])).new_user


async def test_after_a_sign_in_the_next_code_comes_at_once(cases: Cases) -> None:
    for turn in range(LIMITS.per_address.burst + 5):
        signed_in = await cases.signed_in()
        assert signed_in.new_user == (turn == 0)


async def test_a_code_expires(cases: Cases, clock: FakeClock) -> None:
    challenge = await started(cases)
    await clock.advance(600)
    with pytest.raises(Refusal, match="challenge_expired"):
        await guess(cases, challenge.challenge_id, cases.letters.codes[EMAIL])


async def test_an_unknown_challenge_is_an_expired_one(cases: Cases) -> None:
    with pytest.raises(Refusal, match="challenge_expired"):
        await guess(cases, new_id("chl"), "12345678")


async def test_an_address_gets_a_limited_number_of_codes(cases: Cases, clock: FakeClock) -> None:
    limit, tries, pause_s = LIMITS.per_address, 40, 60
    found = Counter[str]()
    for number in range(tries):
        found += await outcomes([started(cases, network=f"192.0.2.{number}")])
        await clock.advance(pause_s)
    sent = limit.burst + (tries - 1) * pause_s * SECOND_NS // limit.period_ns
    assert found == {"ok": sent, "rate_limited": tries - sent}


async def test_a_network_gets_a_limited_number_of_codes_for_one_address(cases: Cases, clock: FakeClock) -> None:
    burst = LIMITS.per_address_and_network.burst
    found = Counter[str]()
    for _ in range(burst + 2):
        found += await outcomes([started(cases, device_id=new_id("dev"))])
    assert found == {"ok": burst, "rate_limited": 2}
    await clock.advance(1200)
    assert await outcomes([started(cases, device_id=new_id("dev"))]) == {"ok": 1}


async def test_a_known_device_gets_a_limited_number_of_codes(cases: Cases, clock: FakeClock) -> None:
    await cases.signed_in(device_id=DEVICE)
    limit, tries, pause_s = LIMITS.per_known_device, 20, 60
    found = Counter[str]()
    for _ in range(tries):
        found += await outcomes([started(cases)])
        await clock.advance(pause_s)
    assert found["ok"] == limit.burst + (tries - 1) * pause_s * SECOND_NS // limit.period_ns


async def test_a_device_whose_session_was_stolen_is_known_no_more(cases: Cases, admin: Any) -> None:
    await cases.signed_in(device_id=DEVICE)
    await admin.execute("UPDATE control.sessions SET revoked_at = now(), revoke_reason = 'token_replay'")
    assert (await started(cases)).email == EMAIL
    buckets = {row["bucket"] for row in await admin.fetch("SELECT bucket FROM control.rate_limits")}
    assert f"start:address:{EMAIL}" in buckets


async def test_a_refused_start_takes_nothing_from_any_limit(cases: Cases, admin: Any) -> None:
    await started(cases)
    read = "SELECT bucket, empty_at FROM control.rate_limits ORDER BY bucket"
    before = await admin.fetch(read)
    assert await outcomes([started(cases) for _ in range(3)]) == {"rate_limited": 3}
    assert await admin.fetch(read) == before


async def test_junk_guesses_of_its_network_keep_nobody_from_its_own_challenge(cases: Cases) -> None:
    challenge = await started(cases)
    for _ in range(LIMITS.guesses_per_network.burst + 1):
        await outcomes([guess(cases, new_id("chl"), "12345678")])
    assert (await guess(cases, challenge.challenge_id, cases.letters.codes[EMAIL])).new_user


async def test_fifty_guesses_at_once_on_two_replicas_are_five(control_database: Database, admin: Any) -> None:
    clock = SystemClock()
    async with cases_on(control_database, clock) as one, cases_on(control_database, clock) as other:
        challenge = await started(one)
        bad = wrong(one.letters.codes[EMAIL])
        found = await outcomes([guess((one, other)[n % 2], challenge.challenge_id, bad) for n in range(50)])
        assert found == {"code_incorrect": 4, "too_many_guesses": 46}
    assert tuple(await admin.fetchrow("SELECT guesses, ended FROM control.challenges")) == (5, "exhausted")


async def test_a_strangers_code_leaves_the_owners_alone(cases: Cases) -> None:
    mine = await started(cases)
    code = cases.letters.codes[EMAIL]
    await started(cases, network="198.51.100.66", device_id=new_id("dev"))
    assert (await guess(cases, mine.challenge_id, code)).new_user


async def test_a_network_gets_a_limited_number_of_codes(cases: Cases) -> None:
    burst = LIMITS.per_network.burst
    found = [await outcomes([started(cases, f"p{number}@example.org")]) for number in range(burst + 2)]
    assert found[:burst] == [Counter(ok=1)] * burst
    assert found[burst:] == [Counter(rate_limited=1)] * 2
    assert await outcomes([started(cases, "q@example.org", network="198.51.100.7")]) == {"ok": 1}


async def test_a_network_may_try_a_limited_number_of_codes(cases: Cases) -> None:
    burst = LIMITS.guesses_per_network.burst
    found = Counter[str]()
    for _ in range(burst + 2):
        found += await outcomes([guess(cases, new_id("chl"), "12345678")])
    assert found == {"challenge_expired": burst, "rate_limited": 2}


async def test_a_start_is_answered_while_no_mail_leaves_and_the_code_comes_when_it_does(
    cases: Cases, clock: FakeClock
) -> None:
    cases.letters.answer = Outcome.LATER
    challenge = await started(cases)
    assert not cases.letters.codes
    cases.letters.answer = Outcome.SENT
    await clock.advance(2)
    await cases.delivery.deliver_due()
    assert (await guess(cases, challenge.challenge_id, cases.letters.codes[EMAIL])).new_user


async def test_the_database_holds_no_code_key_or_token(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    code = cases.letters.codes[EMAIL]
    principal = await cases.admitted(signed_in.tokens.access_token)
    _, api_key = await cases.account(principal, "laptop")
    cases.letters.answer = Outcome.LATER
    waiting = await started(cases, "bob@example.org")
    waiting_code = code_of(HMAC_KEY.encode(), waiting.challenge_id)
    assert await admin.fetchval("SELECT count(*) FROM control.mails") == 1, "a code is on its way"
    tables = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'control'")
    dump = ""
    for table in tables:
        rows = await admin.fetch(f"SELECT to_jsonb(t) FROM control.{table['tablename']} t")  # noqa: S608 - our names
        dump += str([list(row) for row in rows])
    assert principal.subject in dump, "the dump is of the right tables"
    secrets = [code, waiting_code, api_key, api_key[4:], HMAC_KEY]
    secrets += [signed_in.tokens.refresh_token, signed_in.tokens.refresh_token.rsplit(".", 1)[1]]
    secrets += [signed_in.tokens.access_token]
    assert [secret for secret in secrets if secret in dump] == []


async def test_what_is_audited_is_stored_with_what_it_records_or_not_at_all(cases: Cases, admin: Any) -> None:
    await admin.execute("REVOKE INSERT ON control.audit_events FROM control_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await started(cases)
    assert await admin.fetchval("SELECT count(*) FROM control.challenges") == 0


@pytest.mark.parametrize(
    "statement", ["UPDATE control.audit_events SET reason = 'x'", "DELETE FROM control.audit_events"]
)
async def test_the_service_cannot_change_what_was_recorded(control_database: Any, statement: str) -> None:
    connection = await asyncpg.connect(control_database.control)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_trail_of_a_sign_in(cases: Cases, admin: Any) -> None:
    challenge = await started(cases)
    code = cases.letters.codes[EMAIL]
    await outcomes([guess(cases, challenge.challenge_id, wrong(code))])
    first = await guess(cases, challenge.challenge_id, code)
    second = await cases.signed_in(device_id=DEVICE)
    rows = await admin.fetch("SELECT action, reason, actor, target FROM control.audit_events ORDER BY audit_id")
    user, digest = first.user.user_id, address_digest(HMAC_KEY.encode(), EMAIL)
    assert [tuple(row) for row in rows] == [
        ("challenge.started", "", "", digest),
        ("session.signed_in", "code_incorrect", "", digest),
        ("session.signed_in", "", user, first.session.session_id),
        ("challenge.started", "", "", digest),
        ("session.revoked", "device_replaced", user, first.session.session_id),
        ("session.signed_in", "", user, second.session.session_id),
    ]


async def test_sweeping_removes_what_is_over_and_nothing_else(cases: Cases, admin: Any, clock: FakeClock) -> None:
    await started(cases)
    await clock.advance(86_401)
    await started(cases, "bob@example.org")
    await cases.sign_in.sweep()
    assert [row["email"] for row in await admin.fetch("SELECT email FROM control.challenges")] == ["bob@example.org"]
    buckets = {row["bucket"] for row in await admin.fetch("SELECT bucket FROM control.rate_limits")}
    assert buckets == {
        "start:net:192.0.2.1",
        "start:address:bob@example.org",
        "start:address-net:192.0.2.1:bob@example.org",
    }


async def test_a_sweep_takes_a_limited_number_at_a_time(cases: Cases, admin: Any, clock: FakeClock) -> None:
    await admin.execute(
        "INSERT INTO control.rate_limits SELECT n::text, 'epoch' FROM generate_series(1, $1) n", MAX_SWEPT_ROWS + 5
    )
    for left in (5, 0):
        await cases.sign_in.sweep()
        assert await admin.fetchval("SELECT count(*) FROM control.rate_limits") == left
