"""Invitations over the real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.invitations.limits import (
    INVITATION_TTL,
    KEPT_FOR,
    MAX_MAILS,
    MAX_OPEN,
    MAX_PER_HOUR,
    MAX_TO_ADDRESS_BY_ONE_PER_DAY,
    MAX_TO_ADDRESS_PER_DAY,
    RESEND_AFTER,
)
from services.control.policy.domain import Role, StandingPrincipal
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id

BOB = "bob@example.org"


async def team(cases: Cases, owner: StandingPrincipal) -> str:
    """The id of a new org."""
    return (await cases.orgs.create(owner, "team", ORIGIN)).org.org_id


async def invited(
    cases: Cases, owner: StandingPrincipal, org_id: str, email: str = BOB, role: Role = Role.MEMBER
) -> str:
    """The id of an invitation."""
    return (await cases.invitations.create(owner, org_id, email, role, ORIGIN)).invitation.invitation_id


async def made(admin: Any, org_id: str, owner: StandingPrincipal, number: int, age: timedelta, email: str = "") -> None:
    """So many invitations of an age."""
    await admin.execute(
        """INSERT INTO control.invitations
            (invitation_id, org_id, email, role, invited_by, created_at, sent_at, expires_at, ended)
        SELECT 'inv_' || gen_random_uuid(), $1, COALESCE(NULLIF($5, ''), n || '@example.net'), 'member', $2,
            $3::timestamptz, $3::timestamptz, $3::timestamptz + interval '7 days',
            CASE WHEN $5 = '' THEN NULL ELSE 'declined' END
        FROM generate_series(1, $4) n""",
        org_id,
        owner.subject,
        (await admin.fetchval("SELECT created_at FROM control.orgs WHERE org_id = $1", org_id)) - age,
        number,
        email,
    )


async def test_whoever_has_the_address_accepts_and_is_a_member(cases: Cases, admin: Any) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    invitation_id = await invited(cases, ada, org_id, "  Bob@Example.ORG ")
    bob, eve = await cases.principal(BOB), await cases.principal("eve@example.org")
    (shown,) = await cases.invitations.own(bob)
    assert (shown.org_name, shown.inviter_email, shown.invitation.email) == ("team", "ada@example.org", BOB)
    assert await cases.invitations.own(eve) == []
    for stranger in (eve, ada):
        for answer in (cases.invitations.accept, cases.invitations.decline):
            with pytest.raises(Refusal, match="not_found"):
                await answer(stranger, invitation_id, ORIGIN)
    assert await cases.invitations.accept(bob, invitation_id, ORIGIN) == (org_id, Role.MEMBER)
    assert {one.org.org_id for one in await cases.orgs.list(bob)} == {bob.org_id, org_id}
    assert await cases.invitations.own(bob) == await cases.invitations.list(ada, org_id) == []
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(bob, invitation_id, ORIGIN)
    rows = await admin.fetch("SELECT action, actor, org_id FROM control.audit_events WHERE action LIKE 'invitation.%'")
    assert [tuple(row) for row in rows] == [
        ("invitation.created", ada.subject, org_id),
        ("invitation.accepted", bob.subject, org_id),
    ]


async def test_the_mail_tells_nothing_that_somebody_could_write(cases: Cases) -> None:
    ada = await cases.principal()
    org_id = (await cases.orgs.create(ada, "Win a prize at evil.example", ORIGIN)).org.org_id
    invitation_id = await invited(cases, ada, org_id)
    await cases.delivery.deliver_due()
    letter = cases.letters.sent[-1]
    assert letter.address == BOB
    assert invitation_id in letter.text
    assert "prize" not in letter.text + letter.subject
    assert "ada" not in letter.text + letter.subject


async def test_an_invitation_tells_nothing_of_accounts(cases: Cases) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    await cases.principal(BOB)
    answers = [
        await cases.invitations.create(ada, org_id, email, Role.MEMBER, ORIGIN) for email in (BOB, "nobody@example.org")
    ]
    told = [(one.org_name, one.inviter_email, one.invitation.role, one.invitation.expires_at) for one in answers]
    assert told[0] == told[1]
    with pytest.raises(Refusal, match="already_exists"):
        await invited(cases, ada, org_id, "ADA@example.org")


async def test_who_declines_is_asked_no_more(cases: Cases) -> None:
    ada, bob = await cases.principal(), await cases.principal(BOB)
    org_id = await team(cases, ada)
    invitation_id = await invited(cases, ada, org_id)
    await cases.invitations.decline(bob, invitation_id, ORIGIN)
    for answer in (cases.invitations.decline, cases.invitations.accept):
        with pytest.raises(Refusal, match="not_found"):
            await answer(bob, invitation_id, ORIGIN)
    assert [one.org.org_id for one in await cases.orgs.list(bob)] == [bob.org_id]


async def test_an_invitation_ends_by_itself_by_a_newer_one_and_by_its_org(cases: Cases, clock: FakeClock) -> None:
    ada, bob = await cases.principal(), await cases.principal(BOB)
    org_id = await team(cases, ada)
    older = await invited(cases, ada, org_id)
    newer = await invited(cases, ada, org_id, role=Role.VIEWER)
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(bob, older, ORIGIN)
    await cases.invitations.revoke(ada, org_id, newer, ORIGIN)
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(bob, newer, ORIGIN)
    for again in (cases.invitations.revoke, cases.invitations.resend):
        with pytest.raises(Refusal, match="not_found"):
            await again(ada, org_id, newer, ORIGIN)
    late = await invited(cases, ada, org_id)
    await clock.advance(INVITATION_TTL.total_seconds())
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(bob, late, ORIGIN)
    assert await cases.invitations.own(bob) == await cases.invitations.list(ada, org_id) == []
    await cases.invitations.resend(ada, org_id, late, ORIGIN)
    await cases.orgs.delete(ada, org_id, ORIGIN)
    assert await cases.invitations.own(bob) == []
    with pytest.raises(Refusal, match="org_deleted"):
        await cases.invitations.accept(bob, late, ORIGIN)
    await cases.orgs.restore(ada, org_id, ORIGIN)
    assert await cases.invitations.accept(bob, late, ORIGIN) == (org_id, Role.MEMBER)


async def test_an_invitation_counts_while_its_inviter_may_invite(cases: Cases) -> None:
    ada, bob, kim = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "kim")]
    org_id = await team(cases, ada)
    await cases.invitations.accept(bob, await invited(cases, ada, org_id, role=Role.ADMIN), ORIGIN)
    with pytest.raises(Refusal, match="org_scope_denied"):
        await invited(cases, bob, org_id, "kim@example.org", Role.OWNER)
    by_bob = await invited(cases, bob, org_id, "kim@example.org")
    await cases.members.set_role(ada, org_id, bob.subject, Role.MEMBER, ORIGIN)
    with pytest.raises(Refusal, match="org_scope_denied"):
        await invited(cases, bob, org_id, "more@example.org")
    assert await cases.invitations.own(kim) == []
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(kim, by_bob, ORIGIN)
    await cases.members.remove(ada, org_id, bob.subject, ORIGIN)
    (shown,) = await cases.invitations.list(ada, org_id)
    assert shown.inviter_email == ""
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(kim, by_bob, ORIGIN)


async def test_who_lost_the_right_to_make_owners_has_made_none(cases: Cases) -> None:
    ada, bob, kim = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "kim")]
    org_id = await team(cases, ada)
    await cases.invitations.accept(bob, await invited(cases, ada, org_id, role=Role.OWNER), ORIGIN)
    by_bob = await invited(cases, bob, org_id, "kim@example.org", Role.OWNER)
    await cases.members.set_role(ada, org_id, bob.subject, Role.ADMIN, ORIGIN)
    assert await cases.invitations.own(kim) == []
    assert not await cases.invitations.open_for("kim@example.org")
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(kim, by_bob, ORIGIN)


async def test_the_invitations_of_somebody_who_is_blocked_count_for_nothing(cases: Cases) -> None:
    ada, bob, kim = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "kim")]
    org_id = await team(cases, ada)
    await cases.invitations.accept(bob, await invited(cases, ada, org_id, role=Role.ADMIN), ORIGIN)
    by_bob = await invited(cases, bob, org_id, "kim@example.org", Role.ADMIN)
    await cases.blocks.block(bob.subject, ORIGIN)
    assert await cases.invitations.own(kim) == []
    assert not await cases.invitations.open_for("kim@example.org")
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(kim, by_bob, ORIGIN)
    await cases.blocks.unblock(bob.subject, ORIGIN)
    assert await cases.invitations.accept(kim, by_bob, ORIGIN) == (org_id, Role.ADMIN)


async def test_who_sends_an_invitation_again_is_the_one_who_invites(cases: Cases, clock: FakeClock) -> None:
    ada, bob, kim = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "kim")]
    org_id = await team(cases, ada)
    await cases.invitations.accept(bob, await invited(cases, ada, org_id, role=Role.ADMIN), ORIGIN)
    by_bob = await invited(cases, bob, org_id, "kim@example.org")
    await cases.members.remove(ada, org_id, bob.subject, ORIGIN)
    assert await cases.invitations.own(kim) == []
    await clock.advance(RESEND_AFTER.total_seconds())
    assert (await cases.invitations.resend(ada, org_id, by_bob, ORIGIN)).inviter_email == "ada@example.org"
    (shown,) = await cases.invitations.own(kim)
    assert shown.inviter_email == "ada@example.org"
    assert await cases.invitations.accept(kim, by_bob, ORIGIN) == (org_id, Role.MEMBER)


async def test_members_keep_their_role_when_an_old_invitation_is_accepted(cases: Cases) -> None:
    ada, bob = await cases.principal(), await cases.principal(BOB)
    org_id, other = await team(cases, ada), await team(cases, ada)
    first = await invited(cases, ada, org_id, role=Role.ADMIN)
    both = await asyncio.gather(
        *(cases.invitations.accept(bob, first, ORIGIN) for _ in range(4)), return_exceptions=True
    )
    assert [one for one in both if not isinstance(one, Refusal)] == [(org_id, Role.ADMIN)]
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.revoke(ada, other, await invited(cases, ada, org_id, "kim@example.org"), ORIGIN)


async def test_an_org_has_a_limited_number_of_open_invitations(cases: Cases, admin: Any) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    await made(admin, org_id, ada, MAX_OPEN - 1, timedelta(hours=2))
    last = await invited(cases, ada, org_id)
    with pytest.raises(Refusal, match="limit_reached"):
        await invited(cases, ada, org_id, "one.more@example.org")
    assert len(await cases.invitations.list(ada, org_id)) == MAX_OPEN
    await invited(cases, ada, org_id)  # in the place of the last
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.revoke(ada, org_id, last, ORIGIN)


async def test_an_invitation_that_has_expired_needs_room_to_be_open_again(
    cases: Cases, admin: Any, clock: FakeClock
) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    old = await invited(cases, ada, org_id)
    await clock.advance(INVITATION_TTL.total_seconds())
    await made(admin, org_id, ada, MAX_OPEN, -INVITATION_TTL)
    with pytest.raises(Refusal, match="limit_reached"):
        await cases.invitations.resend(ada, org_id, old, ORIGIN)
    (newest, *_) = await cases.invitations.list(ada, org_id)
    await cases.invitations.revoke(ada, org_id, newest.invitation.invitation_id, ORIGIN)
    assert (await cases.invitations.resend(ada, org_id, old, ORIGIN)).invitation.is_open(clock.now())
    assert len(await cases.invitations.list(ada, org_id)) == MAX_OPEN


async def test_an_org_makes_a_limited_number_of_invitations_in_an_hour(cases: Cases, admin: Any) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    await made(admin, org_id, ada, MAX_PER_HOUR - 1, timedelta(minutes=30))
    calls = [invited(cases, ada, org_id, f"q{number}@example.org") for number in range(4)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [one.reason for one in outcomes if isinstance(one, Refusal)] == ["rate_limited"] * 3


async def test_an_address_gets_a_limited_number_of_invitations_in_a_day(cases: Cases, admin: Any) -> None:
    ada = await cases.principal()
    orgs = [await team(cases, ada) for _ in range(4)]
    others = await cases.principal("eve@example.org")
    await made(admin, orgs[0], others, MAX_TO_ADDRESS_PER_DAY - 1, timedelta(hours=3), BOB)
    outcomes = await asyncio.gather(*(invited(cases, ada, org_id) for org_id in orgs), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, Refusal)]
    assert [one.reason for one in refused] == ["rate_limited"] * 3
    assert all(one.retry_after_ms for one in refused)


async def test_nobody_uses_up_the_invitations_that_an_address_gets_in_a_day(cases: Cases) -> None:
    eve, ada = await cases.principal("eve@example.org"), await cases.principal()
    orgs = [await team(cases, eve) for _ in range(2)]
    asked = [invited(cases, eve, org_id) for org_id in orgs * (MAX_TO_ADDRESS_PER_DAY // 2)]
    refused = [one for one in await asyncio.gather(*asked, return_exceptions=True) if isinstance(one, Refusal)]
    await invited(cases, ada, await team(cases, ada))
    assert [one.reason for one in refused] == ["rate_limited"] * (len(asked) - MAX_TO_ADDRESS_BY_ONE_PER_DAY)
    assert all(one.retry_after_ms for one in refused)


async def test_a_mail_is_sent_again_after_a_while_and_not_for_ever(cases: Cases, clock: FakeClock) -> None:
    ada = await cases.principal()
    org_id = await team(cases, ada)
    invitation_id = await invited(cases, ada, org_id)
    await cases.delivery.deliver_due()
    sent = len(cases.letters.sent)
    with pytest.raises(Refusal, match="rate_limited"):
        await cases.invitations.resend(ada, org_id, invitation_id, ORIGIN)
    for _ in range(MAX_MAILS - 1):
        await clock.advance(RESEND_AFTER.total_seconds())
        shown = await cases.invitations.resend(ada, org_id, invitation_id, ORIGIN)
        assert shown.invitation.expires_at == clock.now() + INVITATION_TTL
        await cases.delivery.deliver_due()
    assert len(cases.letters.sent) == sent + MAX_MAILS - 1
    await clock.advance(RESEND_AFTER.total_seconds())
    with pytest.raises(Refusal, match="limit_reached"):
        await cases.invitations.resend(ada, org_id, invitation_id, ORIGIN)


async def test_strangers_and_members_without_the_right_see_no_invitations(cases: Cases) -> None:
    ada, bob, eve = [await cases.principal(f"{name}@example.org") for name in ("ada", "bob", "eve")]
    org_id = await team(cases, ada)
    await cases.invitations.accept(bob, await invited(cases, ada, org_id), ORIGIN)
    open_one = await invited(cases, ada, org_id, "kim@example.org")
    for who, reason in ((bob, "org_scope_denied"), (eve, "not_found")):
        for call in (
            cases.invitations.list(who, org_id),
            cases.invitations.resend(who, org_id, open_one, ORIGIN),
            cases.invitations.revoke(who, org_id, open_one, ORIGIN),
            cases.invitations.create(who, org_id, "more@example.org", Role.VIEWER, ORIGIN),
        ):
            with pytest.raises(Refusal, match=reason):
                await call
    with pytest.raises(Refusal, match="not_found"):
        await cases.invitations.accept(eve, new_id("inv"), ORIGIN)


async def test_old_invitations_are_swept(cases: Cases, admin: Any, clock: FakeClock) -> None:
    ada = await cases.principal()
    await invited(cases, ada, await team(cases, ada))
    await clock.advance((INVITATION_TTL + KEPT_FOR).total_seconds())
    await cases.invitations.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.invitations") == 1
    await clock.advance(1)
    await cases.invitations.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.invitations") == 0
