"""Sessions that ended long ago are removed, and nothing that they ended comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.housekeeping.limits import MAX_SWEPT_ROWS, Retention
from services.control.sessions.domain import RevokeReason
from services.control.tests.cases import ORIGIN, Cases, cases_on, reason_of

ADA = "ada@example.org"
KEPT = Retention()
DAY_S = 86_400


async def _left(admin: Any) -> set[str]:
    return {row["session_id"] for row in await admin.fetch("SELECT session_id FROM control.sessions")}


async def test_a_session_is_removed_long_after_its_end_and_its_tokens_stay_refused(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    idle, ended, living = [await cases.signed_in() for _ in range(3)]
    await cases.sessions.revoke(await cases.admitted(ended.tokens.access_token), "", ORIGIN)
    await clock.advance(KEPT.ended.total_seconds())
    # It goes on, as far as the store knows: its age alone does not remove it.
    await admin.execute(
        "UPDATE control.sessions SET refreshed_at = $2, signed_in_again_at = $2 WHERE session_id = $1",
        living.session.session_id,
        clock.now(),
    )
    await cases.sessions.sweep()
    assert len(await _left(admin)) == 3, "not yet"

    await clock.advance(1)
    await cases.sessions.sweep()
    assert await _left(admin) == {idle.session.session_id, living.session.session_id}, (
        "the idle one ended 30 days later"
    )
    await clock.advance(30 * DAY_S)
    await cases.sessions.sweep()
    assert await _left(admin) == {living.session.session_id}
    for one in (idle, ended):
        refresh = cases.sessions.refresh(one.tokens.refresh_token, one.session.device_id, ORIGIN)
        assert await reason_of(refresh) == "token_revoked"
        assert await reason_of(cases.admitted(one.tokens.access_token)) in ("token_expired", "token_revoked")


async def test_what_operators_ended_stays_as_long_as_the_audit_log_has_it(
    control_database: Database, clock: FakeClock, admin: Any
) -> None:
    retention = Retention(timedelta(days=30), timedelta(days=90))
    async with cases_on(control_database, clock, retention=retention) as cases:
        first, own = await cases.signed_in(ADA), await cases.signed_in(ADA, "dev_01JD8V0000000000000000000B")
        person, session_id = first.session.user_id, first.session.session_id
        async with cases.transactions.begin() as tx:
            await cases.sessions.end_for_operator(tx, person, session_id, ORIGIN)
        await cases.sessions.revoke(await cases.admitted(own.tokens.access_token), "", ORIGIN)
        for days, left in ((31, {session_id}), (60, set[str]())):
            await clock.advance(days * DAY_S)
            await cases.sessions.sweep()
            assert await _left(admin) == left


@pytest.mark.parametrize("is_used_again", [False, True])
async def test_a_device_of_a_stolen_session_is_not_believed_again(
    cases: Cases, clock: FakeClock, admin: Any, is_used_again: bool
) -> None:
    stolen = (await cases.signed_in(ADA)).session
    if is_used_again:
        again = await cases.signed_in(ADA, stolen.device_id)
    await admin.execute(
        "UPDATE control.sessions SET revoked_at = $2, revoke_reason = $3 WHERE session_id = $1",
        stolen.session_id,
        clock.now(),
        RevokeReason.TOKEN_REPLAY,
    )
    await clock.advance(KEPT.ended.total_seconds() + DAY_S)
    await cases.sessions.sweep()
    assert await _left(admin) == ({stolen.session_id, again.session.session_id} if is_used_again else set())
    async with cases.transactions.autocommit() as tx:
        assert not await tx.sessions.known_device(ADA, stolen.device_id)


async def test_a_sweep_looks_at_a_limited_number_and_goes_on_from_there(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    living = (await cases.signed_in(ADA)).session
    await admin.execute(
        "INSERT INTO control.sessions (session_id, user_id, org_id, device_id, counter, created_at, refreshed_at) "
        "SELECT 'ses_' || lpad(n::text, 26, '0'), $1, $2, 'dev_old', 0, 'epoch', 'epoch' FROM generate_series(1, $3) n",
        living.user_id,
        living.org_id,
        MAX_SWEPT_ROWS + 5,
    )
    for left in (5 + 1, 1, 1):
        await cases.sessions.sweep()
        assert len(await _left(admin)) == left
    await clock.advance(KEPT.ended.total_seconds() + 31 * DAY_S)
    await cases.sessions.sweep()
    assert await _left(admin) == set(), "the next pass begins at the first one"
