"""What operators do of sessions and orgs: over the real database, and through the internal port with `oa`'s client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_client.cpython.operators.orgs import OrgOperators
from oa_client.cpython.operators.sessions import SessionOperators
from oa_testing.clock import FakeClock
from services.control.audit.domain import OPERATOR
from services.control.audit_log.app.log import NEWEST_ID
from services.control.audit_log.domain import RecordedEvent
from services.control.installation.domain import InstallationOrg
from services.control.policy.domain import Role, StandingPrincipal
from services.control.tests.cases import DELETE_GRACE, ORIGIN, Cases
from services.control.tests.harness import GATEWAY_TOKEN, LOOPBACK, OPERATOR_TOKEN, Control, new_id

EMAIL = "ada@example.org"
BOB = "bob@example.org"

As = Callable[..., Any]


async def refusal_of(call: Awaitable[object]) -> tuple[str, str]:
    with pytest.raises(Refusal) as refused:
        await call
    return refused.value.reason, refused.value.field


# ------------------------------------------------------------------------------------------------- sessions


async def test_an_operator_sees_and_ends_one_session_of_a_person(cases: Cases, admin: Any, clock: FakeClock) -> None:
    device = new_id("dev")
    first = await cases.signed_in(EMAIL, device)
    await clock.advance(1)
    second = await cases.signed_in(EMAIL)
    person, listed = await cases.installation_sessions.list(f" {EMAIL.upper()}")
    assert [one.session_id for one in listed] == [second.session.session_id, first.session.session_id]
    ended = first.session.session_id
    assert await cases.installation_sessions.revoke(person, ended, ORIGIN) == (person, [ended])
    assert await cases.installation_sessions.revoke(EMAIL, ended, ORIGIN) == (person, []), "it had ended"

    assert await refusal_of(cases.admitted(first.tokens.access_token)) == ("token_revoked", "")
    assert (await refusal_of(cases.sessions.refresh(first.tokens.refresh_token, device, ORIGIN)))[0] == "token_revoked"
    await cases.admitted(second.tokens.access_token)
    shown = {one.session_id: one.revoke_reason for one in (await cases.installation_sessions.list(person))[1]}
    assert shown == {ended: "admin_revoked", second.session.session_id: None}
    # A control of a later release ends sessions for a reason that is not known here.
    await admin.execute("UPDATE control.sessions SET revoke_reason = 'of_later' WHERE session_id = $1", ended)
    assert (await refusal_of(cases.sessions.refresh(first.tokens.refresh_token, device, ORIGIN)))[0] == "token_revoked"
    later = {one.session_id: one.revoke_reason for one in (await cases.installation_sessions.list(person))[1]}
    assert later == {**shown, ended: "of_later"}
    statement = "SELECT actor, org_id, target, reason FROM control.audit_events WHERE action = 'session.revoked'"
    assert [tuple(row) for row in await admin.fetch(statement)] == [
        ("operator", first.session.org_id, ended, "admin_revoked")
    ]
    told = await admin.fetch("SELECT session_id, reason FROM control.revocations")
    assert [tuple(row) for row in told] == [(ended, "admin_revoked")]


async def test_an_operator_ends_all_sessions_and_the_person_may_come_back(
    cases: Cases, admin: Any, clock: FakeClock
) -> None:
    signed_in = [await cases.signed_in(EMAIL) for _ in range(3)]
    eve = await cases.principal("eve@example.org")
    person, ended = await cases.installation_sessions.revoke(EMAIL, "", ORIGIN)
    assert ended == sorted(one.session.session_id for one in signed_in)
    for one in signed_in:
        assert (await refusal_of(cases.admitted(one.tokens.access_token)))[0] == "token_revoked"
    assert (await cases.installation_sessions.list(eve.subject))[1][0].revoked_at is None
    assert await admin.fetchval("SELECT count(*) FROM control.revocations") == len(signed_in)
    assert (await cases.installation_sessions.revoke(person, "", ORIGIN))[1] == []
    await clock.advance(120)
    await cases.admitted((await cases.signed_in(EMAIL)).tokens.access_token)


async def test_a_person_sees_which_of_the_own_sessions_operators_have_ended(cases: Cases) -> None:
    signed_in = [await cases.signed_in(EMAIL) for _ in range(3)]
    eve = await cases.principal("eve@example.org")
    await cases.installation_sessions.revoke(eve.subject, "", ORIGIN)
    await cases.installation_sessions.revoke(EMAIL, signed_in[0].session.session_id, ORIGIN)
    await cases.installation_sessions.revoke(EMAIL, "", ORIGIN)
    ada = await cases.principal(EMAIL)
    shown: list[RecordedEvent] = []
    below = NEWEST_ID
    while below:
        page = await cases.audit_log.own(ada, size=2, below_id=below)
        shown += page.events
        below = page.next_below
    ended = [event for event in shown if event.actor == OPERATOR]
    assert sorted(event.target for event in ended) == sorted(one.session.session_id for one in signed_in)
    assert {(event.action, event.reason, event.network) for event in ended} == {
        ("session.revoked", "admin_revoked", "")
    }
    ids = [event.audit_id for event in shown]
    assert ids == sorted(set(ids), reverse=True)


async def test_a_sign_in_at_the_same_moment_is_before_or_after(cases: Cases) -> None:
    """Whoever was let in before all sessions were ended is among those; who comes after lives."""
    for turn in range(4):
        email, device = f"p{turn}@example.org", new_id("dev")
        first = await cases.signed_in(email)
        started = await cases.started(email, device)
        verify = cases.sign_in.verify(started.challenge_id, cases.letters.codes[email], device, ORIGIN)
        late, (person, ended) = await asyncio.gather(verify, cases.installation_sessions.revoke(email, "", ORIGIN))
        assert first.session.session_id in ended
        listed = {one.session_id: one.revoked_at for one in (await cases.installation_sessions.list(person))[1]}
        assert (listed[late.session.session_id] is not None) == (late.session.session_id in ended)


async def test_a_session_is_named_with_its_person(cases: Cases) -> None:
    ada, eve = await cases.principal(), await cases.principal("eve@example.org")
    account, _ = await cases.account(ada)
    revoke = cases.installation_sessions.revoke
    for session_id in (eve.session_id, new_id("ses")):
        assert await refusal_of(revoke(EMAIL, session_id, ORIGIN)) == ("not_found", "session_id")
    for who in (account.service_account_id, new_id("usr"), "nobody@example.org"):
        assert await refusal_of(revoke(who, "", ORIGIN)) == ("not_found", "person")
        assert await refusal_of(cases.installation_sessions.list(who)) == ("not_found", "person")
    assert await refusal_of(revoke("ada", "", ORIGIN)) == ("invalid_value", "person")
    assert all(one.revoked_at is None for one in (await cases.installation_sessions.list(EMAIL))[1])


# ------------------------------------------------------------------------------------------------- orgs


async def _deleted(cases: Cases, owner: StandingPrincipal, name: str) -> str:
    org_id = (await cases.orgs.create(owner, name, ORIGIN)).org.org_id
    await cases.orgs.delete(owner, org_id, ORIGIN)
    return org_id


async def test_an_operator_sees_orgs_in_pages(cases: Cases) -> None:
    ada, eve = await cases.principal(), await cases.principal("eve@example.org")
    await cases.account(ada)
    made = [(await cases.orgs.create(ada, f"n{index}", ORIGIN)).org.org_id for index in range(3)]
    made.append(await _deleted(cases, eve, "closed"))
    seen: list[InstallationOrg] = []
    after = ""
    while True:
        page, after = await cases.installation_orgs.page("", 3, after, deleted=False)
        seen += page
        if not after:
            break
    assert [one.org.org_id for one in seen] == sorted(made)
    deleted, _ = await cases.installation_orgs.page("", 0, "", deleted=True)
    assert [(one.org.name, one.members, one.org.delete_at is not None) for one in deleted] == [("closed", 1, True)]
    of_eve, _ = await cases.installation_orgs.page("EVE@example.org", 0, "", deleted=False)
    assert {(one.org.personal, one.org.org_id) for one in of_eve} == {(True, eve.org_id), (False, made[-1])}
    assert await refusal_of(cases.installation_orgs.page("x@example.org", 0, "", deleted=False)) == (
        "not_found",
        "person",
    )
    own, members = await cases.installation_orgs.get(ada.org_id)
    assert (own.org.personal, own.members, own.service_accounts) == (True, 1, 1)
    assert [(one.user_id, one.email, one.role) for one in members] == [(ada.subject, EMAIL, Role.OWNER)]


async def test_an_operator_restores_an_org_in_its_grace(cases: Cases, admin: Any, clock: FakeClock) -> None:
    ada = await cases.principal()
    org_id = await _deleted(cases, ada, "team")
    restored = await cases.installation_orgs.restore(org_id, ORIGIN)
    assert (restored.org.name, restored.org.delete_at, restored.members) == ("team", None, 1)
    assert await cases.installation_orgs.restore(org_id, ORIGIN) == restored, "it is open"
    await cases.sessions.switch(ada, org_id, ORIGIN)
    rows = await admin.fetch("SELECT actor, org_id, target FROM control.audit_events WHERE action = 'org.restored'")
    assert [tuple(row) for row in rows] == [("operator", org_id, org_id)]
    changes = await admin.fetch("SELECT org_id, place_change FROM control.revocations ORDER BY position")
    assert [tuple(row) for row in changes] == [(org_id, "lost"), (org_id, "back")]

    gone = await _deleted(cases, await cases.principal("eve@example.org"), "late")
    await clock.advance(DELETE_GRACE.total_seconds() + 1)
    await cases.orgs.sweep()
    assert await refusal_of(cases.installation_orgs.restore(gone, ORIGIN)) == ("org_deleted", "org_id")
    shown, members = await cases.installation_orgs.get(gone)
    assert (shown.gone_at, shown.org.name, list(members)) == (clock.now(), "", [])
    assert [one.org.org_id for one in (await cases.installation_orgs.page("", 0, "", deleted=True))[0]] == []
    for call in (cases.installation_orgs.restore(new_id("org"), ORIGIN), cases.installation_orgs.get(new_id("org"))):
        assert await refusal_of(call) == ("not_found", "org_id")


async def _team(cases: Cases) -> tuple[str, StandingPrincipal, StandingPrincipal]:
    """An org, its owner ada, and its member bob."""
    ada, bob = await cases.principal(EMAIL), await cases.principal(BOB)
    org_id = (await cases.orgs.create(ada, "team", ORIGIN)).org.org_id
    invited = await cases.invitations.create(ada, org_id, BOB, Role.MEMBER, ORIGIN)
    await cases.invitations.accept(bob, invited.invitation.invitation_id, ORIGIN)
    return org_id, ada, bob


async def test_an_org_whose_owner_is_blocked_gets_another_owner(cases: Cases, admin: Any) -> None:
    org_id, ada, bob = await _team(cases)
    orgs = cases.installation_orgs
    assert await refusal_of(orgs.set_owner(org_id, BOB, ORIGIN)) == ("already_exists", "org_id"), "ada decides"
    await cases.blocks.block(ada.subject, ORIGIN)
    owner = await orgs.set_owner(org_id, f" {BOB.upper()}", ORIGIN)
    assert (owner.user_id, owner.role) == (bob.subject, Role.OWNER)
    rows = await admin.fetch("SELECT actor, org_id, target, reason FROM control.audit_events WHERE actor = 'operator'")
    assert (OPERATOR, org_id, bob.subject, "owner") in [tuple(row) for row in rows]
    assert await refusal_of(orgs.set_owner(org_id, BOB, ORIGIN)) == ("already_exists", "org_id")
    await cases.members.set_role(bob, org_id, ada.subject, Role.VIEWER, ORIGIN)


async def test_only_a_member_who_may_come_in_becomes_the_owner(cases: Cases) -> None:
    org_id, ada, bob = await _team(cases)
    stranger = await cases.principal("eve@example.org")
    orgs = cases.installation_orgs
    await cases.blocks.block(ada.subject, ORIGIN)
    await cases.blocks.block(bob.subject, ORIGIN)
    for who, refused in (
        (stranger.subject, ("not_found", "person")),
        ("nobody@example.org", ("not_found", "person")),
        (ada.subject, ("invalid_value", "person")),
        (BOB, ("invalid_value", "person")),
    ):
        assert await refusal_of(orgs.set_owner(org_id, who, ORIGIN)) == refused
    assert await refusal_of(orgs.set_owner(stranger.org_id, BOB, ORIGIN)) == ("personal_org", "org_id")
    assert await refusal_of(orgs.set_owner(new_id("org"), BOB, ORIGIN)) == ("not_found", "org_id")
    deleted = await _deleted(cases, stranger, "late")
    assert (await refusal_of(orgs.set_owner(deleted, stranger.subject, ORIGIN)))[0] == "org_deleted"


async def test_of_two_operators_who_name_an_owner_one_does(cases: Cases) -> None:
    org_id, ada, _bob = await _team(cases)
    ann = await cases.principal("ann@example.org")
    invited = await cases.invitations.create(ada, org_id, "ann@example.org", Role.VIEWER, ORIGIN)
    await cases.invitations.accept(ann, invited.invitation.invitation_id, ORIGIN)
    await cases.blocks.block(ada.subject, ORIGIN)
    naming = (cases.installation_orgs.set_owner(org_id, who, ORIGIN) for who in (BOB, ann.subject))
    outcomes = await asyncio.gather(*naming, return_exceptions=True)
    assert [isinstance(one, Refusal) for one in outcomes].count(True) == 1


# ------------------------------------------------------------------------------------------------- the internal port


@pytest_asyncio.fixture
async def at(control: Control) -> AsyncIterator[As]:
    """What operators have, on a channel to control: `at(SessionOperators)`; or with another token."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        yield lambda what, token=OPERATOR_TOKEN: what(channel, token)


async def test_operators_come_in_by_the_internal_port_and_nobody_else(control: Control, at: As) -> None:
    signed_in = await control.sign_in()
    token = signed_in["tokens"]["accessToken"]
    org_id = (await control.ok("control.OrgService/CreateOrg", {"name": "team"}, token))["org"]["orgId"]
    await control.ok("control.OrgService/DeleteOrg", {"orgId": org_id}, token)
    orgs: OrgOperators = at(OrgOperators)
    (listed,) = [one async for one in orgs.list(deleted=True)]
    assert (listed.org_id, listed.name, listed.members, bool(listed.deletes_at)) == (org_id, "team", 1, True)
    assert [one.deletes_at for one in (await orgs.restore(org_id), (await orgs.show(org_id))[0])] == ["", ""]
    assert [each.email for each in (await orgs.show(org_id))[1]] == [EMAIL]
    assert {one.personal async for one in orgs.list(EMAIL)} == {True, False}

    assert await refusal_of(orgs.set_owner(org_id, EMAIL)) == ("already_exists", "org_id")
    sessions: SessionOperators = at(SessionOperators)
    assert [each.session_id for each in await sessions.list(EMAIL)] == [signed_in["sessionId"]]
    for what in (at(SessionOperators, GATEWAY_TOKEN).revoke(EMAIL), at(OrgOperators, GATEWAY_TOKEN).restore(org_id)):
        assert (await refusal_of(what))[0] == "caller_not_allowed"
    await control.ok("control.SessionService/GetCaller", {}, token)
    assert await sessions.revoke(EMAIL) == (signed_in["sessionId"],)
    assert (await control.call("control.SessionService/GetCaller", {}, token)).status_code == 401
    for method in (
        "InstallationSessionService/RevokeInstallationSessions",
        "InstallationOrgService/GetInstallationOrg",
    ):
        assert (await control.call(f"control.{method}", {}, token)).status_code == 404, "the edge has none of them"
