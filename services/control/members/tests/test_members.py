"""Members over the real database."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from oa_base.refusal import Refusal
from services.control.members.limits import MAX_MEMBERS
from services.control.orgs.limits import MAX_OWNED_ORGS
from services.control.policy.domain import Role, Scope, StandingPrincipal
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id

_NUMBERS = count()

PLACES = """
SELECT array_agg(rtrim(subject || ': ' || reason || ' ' || place_change) ORDER BY position) FROM control.revocations"""


class Org:
    """An org, and how people get into it."""

    def __init__(self, cases: Cases, org_id: str, owner: StandingPrincipal) -> None:
        self._cases = cases
        self.org_id = org_id
        self.owner = owner

    async def member(self, role: Role) -> StandingPrincipal:
        """A new person in it."""
        email = f"p{next(_NUMBERS)}@example.org"
        person = await self._cases.principal(email)
        invited = await self._cases.invitations.create(self.owner, self.org_id, email, role, ORIGIN)
        await self._cases.invitations.accept(person, invited.invitation.invitation_id, ORIGIN)
        return person

    async def roles(self) -> dict[str, Role]:
        """Person -> role, of all members."""
        page, _ = await self._cases.members.page(self.owner, self.org_id, 200, "")
        return {member.user_id: member.role for member in page}


async def org_of(cases: Cases) -> Org:
    """A new org with an owner."""
    owner = await cases.principal(f"o{next(_NUMBERS)}@example.org")
    return Org(cases, (await cases.orgs.create(owner, "team", ORIGIN)).org.org_id, owner)


async def owned(admin: Any, person: StandingPrincipal, number: int) -> None:
    """So many orgs that the person is an owner of, beside those that there are."""
    await admin.execute(
        """WITH made AS (
            INSERT INTO control.orgs (org_id, name, created_at)
            SELECT 'org_' || gen_random_uuid(), 'n', now() FROM generate_series(1, $2) RETURNING org_id
        )
        INSERT INTO control.memberships (org_id, user_id, role, created_at)
        SELECT org_id, $1, 'owner', now() FROM made""",
        person.subject,
        number,
    )


async def test_roles_are_given_by_those_who_may(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    boss, ann, bob = [await org.member(role) for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER)]
    for actor in (ann, bob):
        with pytest.raises(Refusal, match="org_scope_denied"):
            await cases.members.set_role(actor, org.org_id, bob.subject, Role.ADMIN, ORIGIN)
        with pytest.raises(Refusal, match="org_scope_denied"):
            await cases.members.remove(actor, org.org_id, boss.subject, ORIGIN)
    for target, role in ((org.owner, Role.VIEWER), (boss, Role.OWNER)):
        with pytest.raises(Refusal, match="org_scope_denied"):
            await cases.members.set_role(boss, org.org_id, target.subject, role, ORIGIN)
    assert (await cases.members.set_role(boss, org.org_id, bob.subject, Role.MEMBER, ORIGIN)).role is Role.MEMBER
    await cases.members.set_role(org.owner, org.org_id, ann.subject, Role.OWNER, ORIGIN)
    assert list((await org.roles()).values()).count(Role.OWNER) == 2
    rows = await admin.fetch("SELECT actor, target, reason FROM control.audit_events WHERE action = 'member.role_set'")
    assert [tuple(row) for row in rows] == [
        (boss.subject, bob.subject, "member"),
        (org.owner.subject, ann.subject, "owner"),
    ]
    ended = "SELECT count(*) FROM control.revocations WHERE issued_before <> 'epoch'"
    assert await admin.fetchval(ended) == 0, "nobody has lost anything"


async def test_what_a_member_loses_is_revoked_for_that_member_in_that_org(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    ann, bob, eve = [await org.member(role) for role in (Role.ADMIN, Role.MEMBER, Role.MEMBER)]
    await cases.members.set_role(org.owner, org.org_id, ann.subject, Role.MEMBER, ORIGIN)
    await cases.members.remove(org.owner, org.org_id, bob.subject, ORIGIN)
    await cases.members.leave(eve, org.org_id, ORIGIN)
    ended = "SELECT * FROM control.revocations WHERE issued_before <> 'epoch' ORDER BY position"
    rows = await admin.fetch(ended)
    assert [(row["subject"], row["reason"], row["place_change"]) for row in rows] == [
        (ann.subject, "role_lowered", ""),
        (bob.subject, "member_removed", "lost"),
        (eve.subject, "member_left", "lost"),
    ]
    assert {(row["session_id"], row["org_id"], row["issued_before"]) for row in rows} == {
        ("", org.org_id, cases.clock.now())
    }
    assert set(await org.roles()) == {org.owner.subject, ann.subject}


async def test_who_comes_back_or_may_start_runs_again_has_a_place_and_loses_no_token(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    viewer = await org.member(Role.VIEWER)
    assert await admin.fetchval(PLACES) is None, "who may only look has no place"
    for role in (Role.MEMBER, Role.ADMIN, Role.VIEWER, Role.ADMIN):
        await cases.members.set_role(org.owner, org.org_id, viewer.subject, role, ORIGIN)
    assert await admin.fetchval(PLACES) == [
        f"{viewer.subject}: role_raised back",
        f"{viewer.subject}: role_lowered lost",
        f"{viewer.subject}: role_raised back",
    ]
    joined = await org.member(Role.MEMBER)
    assert (await admin.fetchval(PLACES))[3:] == [f"{joined.subject}: member_joined back"]
    ended = "SELECT DISTINCT place_change FROM control.revocations WHERE issued_before <> 'epoch'"
    assert await admin.fetchval(ended) == "lost"


async def test_a_removed_members_sessions_act_in_the_own_org(cases: Cases) -> None:
    org = await org_of(cases)
    ann = await org.member(Role.MEMBER)
    await cases.sessions.switch(ann, org.org_id, ORIGIN)
    with pytest.raises(Refusal, match="org_changed"):
        await cases.gate.standing_now(ann)
    await cases.members.remove(org.owner, org.org_id, ann.subject, ORIGIN)
    assert {session.org_id for session in await cases.sessions.list(ann)} == {ann.org_id}
    assert Scope.RUNS_WRITE in (await cases.gate.standing_now(ann)).effective_scopes
    with pytest.raises(Refusal, match="not_found"):
        await cases.sessions.switch(ann, org.org_id, ORIGIN)


async def test_a_role_that_is_given_has_its_effect_with_the_token_that_is_there(cases: Cases) -> None:
    org = await org_of(cases)
    signed_in = await cases.signed_in("kim@example.org")
    kim = await cases.admitted(signed_in.tokens.access_token)
    invited = await cases.invitations.create(org.owner, org.org_id, "kim@example.org", Role.VIEWER, ORIGIN)
    await cases.invitations.accept(kim, invited.invitation.invitation_id, ORIGIN)
    await cases.sessions.switch(kim, org.org_id, ORIGIN)
    token = (await cases.sessions.refresh(signed_in.tokens.refresh_token, kim.device_id, ORIGIN)).access_token
    for role, may in ((Role.MEMBER, True), (Role.VIEWER, False), (Role.ADMIN, True)):
        await cases.members.set_role(org.owner, org.org_id, kim.subject, role, ORIGIN)
        assert (Scope.RUNS_WRITE in (await cases.admitted(token)).effective_scopes) is may


async def test_an_org_is_handed_over(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    ann = await org.member(Role.VIEWER)
    with pytest.raises(Refusal, match="last_owner"):
        await cases.members.leave(org.owner, org.org_id, ORIGIN)
    with pytest.raises(Refusal, match="org_scope_denied"):
        await cases.members.transfer(ann, org.org_id, org.owner.subject, ORIGIN)
    with pytest.raises(Refusal, match="invalid_value"):
        await cases.members.transfer(org.owner, org.org_id, org.owner.subject, ORIGIN)
    await cases.members.transfer(org.owner, org.org_id, ann.subject, ORIGIN)
    assert await org.roles() == {org.owner.subject: Role.ADMIN, ann.subject: Role.OWNER}
    assert await admin.fetchval(f"{PLACES} WHERE place_change = ''") == [f"{org.owner.subject}: role_lowered"]
    assert await admin.fetchval(f"{PLACES} WHERE place_change <> ''") == [f"{ann.subject}: role_raised back"]
    await cases.members.leave(org.owner, org.org_id, ORIGIN)


async def test_an_owner_who_is_blocked_does_not_count_as_one_who_stays(cases: Cases) -> None:
    org = await org_of(cases)
    ann = await org.member(Role.OWNER)
    await cases.blocks.block(ann.subject, ORIGIN)
    for call in (
        cases.members.leave(org.owner, org.org_id, ORIGIN),
        cases.members.set_role(org.owner, org.org_id, org.owner.subject, Role.ADMIN, ORIGIN),
        cases.members.transfer(org.owner, org.org_id, ann.subject, ORIGIN),
    ):
        with pytest.raises(Refusal, match="last_owner"):
            await call
    await cases.members.set_role(org.owner, org.org_id, ann.subject, Role.ADMIN, ORIGIN)
    with pytest.raises(Refusal, match="last_owner"):
        await cases.members.transfer(org.owner, org.org_id, ann.subject, ORIGIN)
    await cases.blocks.unblock(ann.subject, ORIGIN)
    await cases.members.transfer(org.owner, org.org_id, ann.subject, ORIGIN)
    assert await org.roles() == {org.owner.subject: Role.ADMIN, ann.subject: Role.OWNER}


async def test_nobody_removes_oneself_and_nobody_who_is_not_there(cases: Cases) -> None:
    org = await org_of(cases)
    with pytest.raises(Refusal, match="invalid_value"):
        await cases.members.remove(org.owner, org.org_id, org.owner.subject, ORIGIN)
    stranger = await cases.principal("stranger@example.org")
    for user_id in (stranger.subject, new_id("usr")):
        with pytest.raises(Refusal, match="not_found") as refused:
            await cases.members.remove(org.owner, org.org_id, user_id, ORIGIN)
        assert refused.value.field == "user_id"
    for call in (
        cases.members.page(stranger, org.org_id, 0, ""),
        cases.members.leave(stranger, org.org_id, ORIGIN),
        cases.members.set_role(stranger, org.org_id, stranger.subject, Role.OWNER, ORIGIN),
    ):
        with pytest.raises(Refusal, match="not_found") as refused:
            await call
        assert refused.value.field == "org_id"


async def test_members_come_in_pages(cases: Cases) -> None:
    org = await org_of(cases)
    people = {org.owner.subject} | {(await org.member(Role.MEMBER)).subject for _ in range(4)}
    seen: list[str] = []
    after = ""
    for size in (2, 2, 1):
        page, after = await cases.members.page(org.owner, org.org_id, 2, after)
        assert len(page) == size
        seen += [member.user_id for member in page]
    assert (after, seen) == ("", sorted(people))


async def test_an_org_has_a_limited_number_of_members(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    await admin.execute(
        """WITH people AS (
            INSERT INTO control.users SELECT 'usr_' || n, n || '@example.org', now() FROM generate_series(1, $2) n
            RETURNING user_id)
        INSERT INTO control.memberships SELECT $1, user_id, 'member', now() FROM people""",
        org.org_id,
        MAX_MEMBERS - 2,
    )
    await org.member(Role.MEMBER)
    with pytest.raises(Refusal, match="limit_reached"):
        await org.member(Role.MEMBER)


async def test_of_two_owners_that_go_at_once_one_stays(cases: Cases) -> None:
    """By every pair of ways to go."""
    ways: list[Any] = [
        lambda org, me, _: cases.members.leave(me, org.org_id, ORIGIN),
        lambda org, me, _: cases.members.set_role(me, org.org_id, me.subject, Role.VIEWER, ORIGIN),
        lambda org, me, other: cases.members.remove(me, org.org_id, other.subject, ORIGIN),
        lambda org, me, other: cases.members.set_role(me, org.org_id, other.subject, Role.MEMBER, ORIGIN),
    ]
    for first in ways:
        for second in ways:
            org = await org_of(cases)
            watcher = await org.member(Role.ADMIN)
            other = await org.member(Role.OWNER)
            calls = [first(org, org.owner, other), second(org, other, org.owner)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, BaseException)]
            reasons = {one.reason for one in refused if isinstance(one, Refusal)}
            assert len(refused) <= 1, outcomes
            assert reasons <= {"last_owner", "not_found", "org_scope_denied"}, outcomes
            page, _ = await cases.members.page(watcher, org.org_id, 0, "")
            assert [member.role for member in page].count(Role.OWNER) == 1


async def test_who_switches_while_being_removed_does_not_stay_in_the_org(cases: Cases) -> None:
    for _ in range(10):
        org = await org_of(cases)
        ann = await org.member(Role.MEMBER)
        await asyncio.gather(
            cases.sessions.switch(ann, org.org_id, ORIGIN),
            cases.members.remove(org.owner, org.org_id, ann.subject, ORIGIN),
            return_exceptions=True,
        )
        assert {session.org_id for session in await cases.sessions.list(ann)} == {ann.org_id}


async def test_nobody_comes_to_own_too_many_orgs_in_any_way(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    bob = await org.member(Role.MEMBER)
    kim = await cases.principal("kim@example.org")
    for person in (bob, kim):
        await owned(admin, person, MAX_OWNED_ORGS)
    invited = await cases.invitations.create(org.owner, org.org_id, "kim@example.org", Role.OWNER, ORIGIN)
    for call in (
        cases.members.set_role(org.owner, org.org_id, bob.subject, Role.OWNER, ORIGIN),
        cases.members.transfer(org.owner, org.org_id, bob.subject, ORIGIN),
        cases.invitations.accept(kim, invited.invitation.invitation_id, ORIGIN),
    ):
        with pytest.raises(Refusal, match="limit_reached"):
            await call
    assert await org.roles() == {org.owner.subject: Role.OWNER, bob.subject: Role.MEMBER}
    await cases.members.set_role(org.owner, org.org_id, bob.subject, Role.ADMIN, ORIGIN)


async def test_who_owns_as_many_orgs_as_possible_takes_over_one_of_them(cases: Cases, admin: Any) -> None:
    org = await org_of(cases)
    bob = await org.member(Role.OWNER)
    await owned(admin, bob, MAX_OWNED_ORGS - 1)
    await cases.members.transfer(org.owner, org.org_id, bob.subject, ORIGIN)
    assert await org.roles() == {org.owner.subject: Role.ADMIN, bob.subject: Role.OWNER}


async def test_ways_to_own_that_come_at_the_same_time_give_no_more_than_the_limit(cases: Cases, admin: Any) -> None:
    orgs = [await org_of(cases) for _ in range(3)]
    kim = await cases.principal("kim@example.org")
    await owned(admin, kim, MAX_OWNED_ORGS - 1)
    calls = []
    for org, role in zip(orgs, (Role.OWNER, Role.MEMBER, Role.MEMBER), strict=True):
        invited = await cases.invitations.create(org.owner, org.org_id, "kim@example.org", role, ORIGIN)
        invitation_id = invited.invitation.invitation_id
        if role is Role.OWNER:
            calls.append(cases.invitations.accept(kim, invitation_id, ORIGIN))
        else:
            await cases.invitations.accept(kim, invitation_id, ORIGIN)
    by_role, by_transfer = orgs[1:]
    outcomes = await asyncio.gather(
        *calls,
        cases.members.set_role(by_role.owner, by_role.org_id, kim.subject, Role.OWNER, ORIGIN),
        cases.members.transfer(by_transfer.owner, by_transfer.org_id, kim.subject, ORIGIN),
        cases.orgs.create(kim, "one more", ORIGIN),
        return_exceptions=True,
    )
    assert [getattr(one, "reason", type(one)) for one in outcomes if isinstance(one, BaseException)] == [
        "limit_reached"
    ] * 3
