"""Deleting accounts over the real database: what goes, what stays, and that nothing gets past it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.telemetry.metrics import REGISTRY
from oa_testing.clock import FakeClock
from oa_testing.locks import until_lock_waits
from oa_testing.postgres import Database
from services.control.accounts import app as accounts_app
from services.control.accounts.limits import MAX_ATTEMPTS
from services.control.api_keys.app.keys import Wanted
from services.control.api_keys.domain import Use
from services.control.audit.domain import OPERATOR, address_digest
from services.control.audit_log.domain import Filters, Outcome
from services.control.blocks.domain import Subject
from services.control.policy.domain import Role, StandingPrincipal
from services.control.sign_in.domain.sign_up import SignUp, SignUpRule
from services.control.sign_in.limits import CHALLENGES_KEPT_FOR
from services.control.tests.cases import DELETE_GRACE, ORIGIN, Cases, cases_on, reason_of
from services.control.tests.harness import HMAC_KEY, new_id

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"

HELD = """
SELECT (SELECT count(*) FROM control.sessions WHERE user_id = $1)
     + (SELECT count(*) FROM control.memberships WHERE user_id = $1)
     + (SELECT count(*) FROM control.identities WHERE user_id = $1)
     + (SELECT count(*) FROM control.api_keys WHERE owner = $1)"""


async def team(cases: Cases, owner: StandingPrincipal, *members: tuple[StandingPrincipal, str, Role]) -> str:
    """An org of the owner's with these members."""
    org_id = (await cases.orgs.create(owner, "team", ORIGIN)).org.org_id
    for member, email, role in members:
        shown = await cases.invitations.create(owner, org_id, email, role, ORIGIN)
        await cases.invitations.accept(member, shown.invitation.invitation_id, ORIGIN)
    return org_id


async def everything(admin: Any) -> str:
    """All that is stored of people, but the audit trail."""
    names = await admin.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class c "
        "WHERE relnamespace = 'control'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'audit%'"
    )
    rows = [await admin.fetch(f"SELECT to_jsonb(t)::text AS row FROM {one['name']} t") for one in names]  # noqa: S608
    return "\n".join(row["row"] for table in rows for row in table)


async def test_what_remains_of_an_account_is_its_id_and_when_it_was_deleted(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ada, bob = await cases.principal(ADA), await cases.principal(BOB)
    org_id = await team(cases, bob, (ada, ADA, Role.ADMIN))
    await cases.invitations.create(bob, await team(cases, bob), ADA, Role.MEMBER, ORIGIN)
    await cases.api_keys.create(ada, "", Wanted("ada's laptop", (), 3600), ORIGIN)
    await cases.started(ADA, new_id("dev"))
    name = await admin.fetchval("SELECT name FROM control.orgs WHERE org_id = $1", ada.org_id)
    assert name == "ada"
    deletion = await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    assert [org.org_id for org in deletion.left] == [org_id]
    assert [org.org_id for org in deletion.ending] == [ada.org_id]
    assert (deletion.account.name, deletion.account.deleted_at) == ("", clock.now())
    await cases.delivery.deliver_due()
    assert cases.letters.sent[-1].facts["notice"] == "account_deleted"
    assert cases.letters.sent[-1].address == ADA
    await clock.advance(CHALLENGES_KEPT_FOR.total_seconds() + 1)
    await cases.sign_in.sweep()  # codes that were used, and how many were asked for

    left = await everything(admin)
    assert "ada" not in left
    row = await admin.fetchrow("SELECT to_jsonb(u) AS row FROM control.users u WHERE user_id = $1", ada.subject)
    assert {key for key, value in json.loads(row["row"]).items() if value is not None} == {
        "user_id",
        "created_at",
        "deleted_at",
    }
    assert await admin.fetchval(HELD, ada.subject) == 0
    subject = await cases.blocks.get(ada.subject)
    assert (subject.name, subject.org_id, subject.deleted_at) == ("", ada.org_id, deletion.account.deleted_at)


async def test_everything_that_is_open_ends_and_is_told(cases: Cases, clock: FakeClock, admin: Any) -> None:
    device = new_id("dev")
    signed_in = await cases.signed_in(ADA, device)
    ada, bob = await cases.admitted(signed_in.tokens.access_token), await cases.principal(BOB)
    alone = await team(cases, ada)
    await team(cases, bob, (ada, ADA, Role.MEMBER))
    key = await cases.api_keys.create(ada, "", Wanted("n", (), 3600), ORIGIN)
    program = (await cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN)).token
    await admin.execute("DELETE FROM control.revocations")
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)

    for token in (signed_in.tokens.access_token, program):
        assert await reason_of(cases.admitted(token)) == "token_revoked"
    assert await reason_of(cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN)) == "token_revoked"
    assert await reason_of(cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN)) == "invalid_api_key"
    rows = await admin.fetch("SELECT * FROM control.revocations ORDER BY position")
    told = [(row["subject"], row["org_id"], row["reason"], row["place_change"]) for row in rows]
    assert told[0] == (ada.subject, "", "account_deleted", "lost")
    assert rows[0]["issued_before"] is None, "the id never comes back"
    assert sorted(told[1:]) == sorted(("", org, "org_deleted", "lost") for org in (ada.org_id, alone))


async def test_the_orgs_that_end_are_gone_after_the_grace_and_nobody_restores_them(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ada = await cases.principal(ADA)
    alone = await team(cases, ada)
    account, key = await cases.account(ada)
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    assert await reason_of(cases.api_keys.exchange(key, Use.EDGE, ORIGIN)) in ("org_deleted", "invalid_api_key")
    for org_id in (ada.org_id, alone):
        found, _ = await cases.installation_orgs.get(org_id)
        assert (found.org.name, found.org.delete_at, found.members) == ("", clock.now() + DELETE_GRACE, 0)
        assert await reason_of(cases.installation_orgs.restore(org_id, ORIGIN)) == "org_deleted"
    await clock.advance(DELETE_GRACE.total_seconds())
    await cases.orgs.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.orgs WHERE gone_at IS NOT NULL") == 2
    assert account.org_id == ada.org_id


async def test_the_address_opens_another_account_that_has_nothing_of_the_old_one(cases: Cases) -> None:
    device = new_id("dev")
    signed_in = await cases.signed_in(ADA, device)
    ada, bob = await cases.admitted(signed_in.tokens.access_token), await cases.principal(BOB)
    org_id = await team(cases, bob, (ada, ADA, Role.OWNER))
    invited = await cases.invitations.create(bob, await team(cases, bob), ADA, Role.MEMBER, ORIGIN)
    key = await cases.api_keys.create(ada, "", Wanted("n", (), 3600), ORIGIN)
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)

    again = await cases.signed_in(ADA, device, signed_in.tokens.refresh_token)
    new = await cases.admitted(again.tokens.access_token)
    assert again.new_user
    assert {new.subject, new.org_id, new.session_id}.isdisjoint({ada.subject, ada.org_id, ada.session_id})
    assert [one.org.org_id for one in await cases.orgs.list(new)] == [new.org_id]
    assert await cases.invitations.own(new) == []
    invitation_id = invited.invitation.invitation_id
    assert await reason_of(cases.invitations.accept(new, invitation_id, ORIGIN)) == "not_found"
    assert await cases.api_keys.list(new, "") == []
    assert await reason_of(cases.api_keys.revoke(new, key.key.api_key_id, ORIGIN)) == "not_found"
    assert await reason_of(cases.orgs.get(new, org_id)) == "not_found"
    assert {event.actor for event in (await cases.audit_log.own(new)).events} == {new.subject}


async def test_the_only_owner_hands_the_orgs_over_first(cases: Cases) -> None:
    ada, bob = await cases.principal(ADA), await cases.principal(BOB)
    first, second = [await team(cases, ada, (bob, BOB, Role.MEMBER)) for _ in range(2)]
    assert {org.org_id for org in (await cases.accounts.own_deletion(ada)).blocking} == {first, second}
    for call in (cases.accounts.delete_own(ada, ada.subject, ORIGIN), cases.accounts.delete(ADA, ORIGIN)):
        with pytest.raises(Refusal) as refused:
            await call
        assert refused.value.reason == "last_owner"
        assert refused.value.metadata == {"org_ids": ",".join(sorted((first, second)))}
    await cases.members.transfer(ada, first, bob.subject, ORIGIN)
    await cases.orgs.delete(ada, second, ORIGIN)
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    # Operators restore it, and give it an owner.
    await cases.installation_orgs.restore(second, ORIGIN)
    assert (await cases.installation_orgs.set_owner(second, BOB, ORIGIN)).role is Role.OWNER


async def test_an_owner_who_is_blocked_is_none(cases: Cases) -> None:
    ada, bob = await cases.principal(ADA), await cases.principal(BOB)
    await team(cases, ada, (bob, BOB, Role.OWNER))
    await cases.blocks.block(BOB, ORIGIN)
    assert await reason_of(cases.accounts.delete_own(ada, ada.subject, ORIGIN)) == "last_owner"


async def test_the_deletion_is_recorded_where_it_is_of_interest(cases: Cases) -> None:
    bob = await cases.principal(BOB)
    for email, by_operator in ((ADA, False), (EVE, True)):
        person = await cases.principal(email)
        org_id = await team(cases, bob, (person, email, Role.MEMBER))
        if by_operator:
            await cases.accounts.delete(email, ORIGIN)
        else:
            await cases.accounts.delete_own(person, person.subject, ORIGIN)
        actor = OPERATOR if by_operator else person.subject
        own = (await cases.audit_log.list(person.org_id, Filters(actor=actor))).events[:2]
        assert [(one.action, one.target, one.reason) for one in own] == [
            ("account.deleted", person.subject, ""),
            ("org.deleted", person.org_id, "account_deleted"),
        ]
        (told,) = (await cases.audit_log.list(org_id, Filters(target=person.subject))).events
        left = "member.removed" if by_operator else "member.left"
        assert (told.action, told.actor, told.reason, told.outcome) == (left, actor, "account_deleted", Outcome.DONE)


async def test_deleting_again_changes_nothing(cases: Cases, admin: Any) -> None:
    ada = await cases.principal(ADA)
    before = REGISTRY.get_sample_value("oa_control_accounts_deleted_total", {"by": "operator"}) or 0
    ended = await cases.accounts.delete(f" {ADA.upper()}", ORIGIN)
    events = await admin.fetchval("SELECT count(*) FROM control.audit_events")
    again = await cases.accounts.delete(ada.subject, ORIGIN)
    assert again.account == Subject(ada.subject, "", ada.org_id, None, 0, 0, ended.account.deleted_at)
    assert await cases.accounts.deletion(ada.subject) == again
    assert await admin.fetchval("SELECT count(*) FROM control.audit_events") == events
    assert REGISTRY.get_sample_value("oa_control_accounts_deleted_total", {"by": "operator"}) == before + 1
    assert await reason_of(cases.accounts.delete(ADA, ORIGIN)) == "not_found", "the address is free"
    assert (await cases.blocks.block(ada.subject, ORIGIN)).blocked_at is None


@pytest.mark.parametrize(
    "who", ["usr_01JD8V0000000000000000000A", "sva_01JD8V0000000000000000000A", "nobody@example.org"]
)
async def test_nobody_is_not_found(cases: Cases, who: str) -> None:
    assert await reason_of(cases.accounts.deletion(who)) == "not_found"
    assert await reason_of(cases.accounts.delete(who, ORIGIN)) == "not_found"


async def test_a_code_that_was_sent_before_opens_nothing(cases: Cases) -> None:
    ada, device = await cases.principal(ADA), new_id("dev")
    started = await cases.started(ADA, device)
    await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    call = cases.sign_in.verify(started.challenge_id, cases.letters.codes[ADA], device, ORIGIN)
    assert await reason_of(call) == "challenge_expired"


async def test_addresses_in_the_audit_trail_are_digests_that_only_the_address_finds(cases: Cases, admin: Any) -> None:
    bob = await cases.principal(BOB)
    org_id = await team(cases, bob)
    shown = await cases.invitations.create(bob, org_id, ADA, Role.MEMBER, ORIGIN)
    trail = await admin.fetch("SELECT to_jsonb(e)::text AS row FROM control.audit_events e")
    assert not [row["row"] for row in trail if "@" in row["row"]]
    digest = address_digest(HMAC_KEY.encode(), ADA)
    (made,) = (await cases.audit_log.list(org_id, Filters(target=f" {ADA.upper()}"))).events
    assert made.target == f"{shown.invitation.invitation_id} {digest}"
    assert (await cases.audit_log.list(org_id, Filters(target=EVE))).events == []
    asked = (await cases.audit_log.list("", Filters(target=BOB))).events
    assert [event.action for event in asked] == ["challenge.started"]


async def test_nothing_gets_past_a_deletion_that_comes_at_the_same_time(cases: Cases, admin: Any) -> None:
    """Whatever races the deletion was before it, and ended with it, or is refused, or belongs to another account."""
    for turn in range(6):
        email, device, again = f"p{turn}@example.org", new_id("dev"), new_id("dev")
        boss = await cases.principal(f"b{turn}@example.org")
        signed_in = await cases.signed_in(email, device)
        person = await cases.admitted(signed_in.tokens.access_token)
        shared = await team(cases, boss, (person, email, Role.MEMBER))
        invited = await cases.invitations.create(boss, await team(cases, boss), email, Role.OWNER, ORIGIN)
        key = await cases.api_keys.create(person, "", Wanted("n", (), 3600), ORIGIN)
        started = await cases.started(email, again)
        results = await asyncio.gather(
            cases.sessions.refresh(signed_in.tokens.refresh_token, device, ORIGIN),
            cases.sign_in.verify(started.challenge_id, cases.letters.codes[email], again, ORIGIN),
            cases.api_keys.exchange(key.text, Use.EDGE, ORIGIN),
            cases.api_keys.create(person, "", Wanted("late", (), 3600), ORIGIN),
            cases.invitations.accept(person, invited.invitation.invitation_id, ORIGIN),
            cases.orgs.create(person, "late", ORIGIN),
            cases.members.transfer(boss, shared, person.subject, ORIGIN),
            cases.sessions.revoke_many(person, "", ORIGIN, keep_current=False),
            cases.accounts.delete(email, ORIGIN),
            return_exceptions=True,
        )
        broken = [each for each in results if isinstance(each, BaseException) and not isinstance(each, Refusal)]
        assert broken == []
        if isinstance(results[-1], Refusal):  # the person was made the only owner first
            assert results[-1].reason == "last_owner"
            continue
        assert await admin.fetchval(HELD, person.subject) == 0
        ownerless = await admin.fetch(
            "SELECT o.org_id FROM control.orgs o WHERE delete_at IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM control.memberships m WHERE m.org_id = o.org_id AND m.role = 'owner')"
        )
        assert ownerless == []


@pytest.mark.parametrize("what", ["joins", "founds an org", "makes a key"])
async def test_who_waits_for_the_account_finds_it_deleted(
    cases: Cases, admin: Any, clock: FakeClock, what: str
) -> None:
    ada, bob = await cases.principal(ADA), await cases.principal(BOB)
    shown = await cases.invitations.create(bob, await team(cases, bob), ADA, Role.MEMBER, ORIGIN)
    async with cases.transactions.begin() as tx:
        await tx.blocks.locked(ada.subject)
        if what == "joins":
            call: Coroutine[Any, Any, object] = cases.invitations.accept(ada, shown.invitation.invitation_id, ORIGIN)
        elif what == "founds an org":
            call = cases.orgs.create(ada, "late", ORIGIN)
        else:
            call = cases.api_keys.create(ada, "", Wanted("late", (), 3600), ORIGIN)
        waiting = asyncio.create_task(call)
        await until_lock_waits(admin)
        await tx.accounts.erase(ada.subject, clock.now())
    assert await reason_of(waiting) == "token_revoked"
    assert await admin.fetchval(HELD, ada.subject) == 0


async def test_a_code_that_is_asked_for_meanwhile_opens_no_account_where_nobody_may_sign_up(
    control_database: Database, cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ada = await cases.principal(ADA)
    async with cases_on(control_database, clock, sign_up=SignUpRule(SignUp.INVITATION)) as closed:
        async with closed.transactions.begin() as tx:
            assert await tx.people.hold(ada.subject)
            deleting = asyncio.create_task(cases.accounts.delete(ADA, ORIGIN))
            await until_lock_waits(admin)
            asking = asyncio.create_task(closed.started(ADA, new_id("dev")))
            await until_lock_waits(admin, 2)
        await asyncio.gather(deleting, asking)
        assert not closed.letters.codes.get(ADA), "the mail has no code"


async def test_who_joins_orgs_without_a_pause_is_asked_to_try_again(
    cases: Cases, monkeypatch: pytest.MonkeyPatch, admin: Any
) -> None:
    ada = await cases.principal(ADA)
    attempts = 0

    async def changes(*_: object) -> None:
        nonlocal attempts
        attempts += 1
        raise accounts_app._OrgsChanged

    monkeypatch.setattr(cases.accounts, "_locked", changes)
    with pytest.raises(Refusal) as refused:
        await cases.accounts.delete_own(ada, ada.subject, ORIGIN)
    assert (refused.value.reason, attempts) == ("unavailable", MAX_ATTEMPTS)
    assert await admin.fetchval("SELECT count(*) FROM control.users WHERE deleted_at IS NULL") == 1


async def test_a_session_that_is_ended_while_its_deletion_waits_deletes_nothing(cases: Cases, admin: Any) -> None:
    person, thief = await cases.principal(), await cases.principal()
    async with admin.transaction():
        await admin.execute("SELECT FROM control.users FOR UPDATE")
        call = asyncio.ensure_future(cases.accounts.delete_own(thief, thief.subject, ORIGIN))
        await until_lock_waits(admin)
        await cases.sessions.revoke_many(person, "", ORIGIN, keep_current=True)
    assert await reason_of(call) == "token_revoked"
    assert (await cases.blocks.get(person.subject)).deleted_at is None
