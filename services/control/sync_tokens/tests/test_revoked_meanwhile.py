"""A token is never issued on what has been revoked meanwhile, and one that was issued before is ended by it."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest

from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.control.api_keys.domain import Use
from services.control.policy.domain import Role, StandingPrincipal
from services.control.sync_tokens.app import SyncToken
from services.control.sync_tokens.domain import Surface
from services.control.tests.cases import ORIGIN, Cases, cases_on
from services.control.tests.harness import new_id
from services.control.tokens.app import IssuedToken


async def acting_member(cases: Cases, role: Role) -> tuple[StandingPrincipal, StandingPrincipal, str]:
    """An owner, a member with a role who acts in the org, and the org."""
    owner = await cases.principal("owner@example.org")
    org_id = (await cases.orgs.create(owner, "team", ORIGIN)).org.org_id
    signed_in = await cases.signed_in("kim@example.org")
    kim = await cases.admitted(signed_in.tokens.access_token)
    invited = await cases.invitations.create(owner, org_id, "kim@example.org", role, ORIGIN)
    await cases.invitations.accept(kim, invited.invitation.invitation_id, ORIGIN)
    await cases.sessions.switch(kim, org_id, ORIGIN)
    tokens = await cases.sessions.refresh(signed_in.tokens.refresh_token, kim.device_id, ORIGIN)
    return owner, await cases.admitted(tokens.access_token), org_id


def issued_s(token: str) -> float:
    """When it was issued. A token that was issued on the second does not state its milliseconds."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return float(claims["iat"] + claims.get("iat_ms", 0) / 1000)


@pytest.mark.parametrize("way", ["removed", "deleted"])
async def test_who_loses_the_org_while_runtime_is_asked_gets_no_token(
    cases: Cases, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    owner, kim, org_id = await acting_member(cases, Role.MEMBER)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def org_of_run(*_: object) -> str:
        asked.set()
        await answer.wait()
        return org_id

    monkeypatch.setattr(cases.runs, "org_of_run", org_of_run)
    topics = [f"run:{new_id('run')}:events"]
    minting = asyncio.create_task(cases.sync_tokens.mint(kim, topics, 0, Surface.UNSTATED, ORIGIN))
    await asked.wait()
    if way == "removed":
        await cases.members.remove(owner, org_id, kim.subject, ORIGIN)
    else:
        await cases.orgs.delete(owner, org_id, ORIGIN)
    answer.set()
    with pytest.raises(Refusal) as refused:
        await minting
    assert refused.value.reason == ("org_changed" if way == "removed" else "org_deleted")


TOKENS_OF = "SELECT pg_advisory_xact_lock(control.tokens_lock($1))"
DELETE_ORG = "UPDATE control.orgs SET delete_at = now() WHERE org_id = $1"
REVOKE_SESSION = """
UPDATE control.sessions SET revoked_at = now(), revoke_reason = 'user_requested' WHERE session_id = $1"""
DEMOTE = "UPDATE control.memberships SET role = 'viewer' WHERE org_id = $1"
REMOVE = "DELETE FROM control.memberships WHERE org_id = $1"
WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"""


@pytest.mark.parametrize("held", [True, False], ids=["who revokes is under way", "was quicker"])
@pytest.mark.parametrize(
    ("statement", "of_session", "reason"),
    [
        (DELETE_ORG, False, "org_deleted"),
        (REVOKE_SESSION, True, "token_revoked"),
        (REMOVE, False, "org_scope_denied"),
        (DEMOTE, False, ""),
    ],
    ids=["org deleted", "session revoked", "member removed", "role that still suffices"],
)
async def test_a_mint_waits_for_who_revokes_and_sees_what_was_revoked(
    cases: Cases, admin: Any, monkeypatch: pytest.MonkeyPatch, statement: str, of_session: bool, reason: str, held: bool
) -> None:
    _, kim, org_id = await acting_member(cases, Role.MEMBER)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def org_of_run(*_: object) -> str:
        asked.set()
        await answer.wait()
        return org_id

    monkeypatch.setattr(cases.runs, "org_of_run", org_of_run)
    topics = [f"org:{org_id}:runs", f"run:{new_id('run')}:events"]
    minting = asyncio.create_task(cases.sync_tokens.mint(kim, topics, 0, Surface.UNSTATED, ORIGIN))
    await asked.wait()
    async with admin.transaction():
        if held:
            await admin.execute(TOKENS_OF, org_id)
            answer.set()
            async with asyncio.timeout(PATIENCE_S):
                while not await admin.fetchval(WAITING):
                    await asyncio.sleep(0.01)
        await admin.execute(statement, kim.session_id if of_session else org_id)
    answer.set()
    if not reason:
        assert (await minting).grants[0].reason is None
    else:
        with pytest.raises(Refusal) as refused:
            await minting
        assert refused.value.reason == reason
    recorded = "SELECT count(*) FROM control.audit_events WHERE action = 'sync_token.minted' AND reason = ''"
    assert await admin.fetchval(recorded) == (0 if reason else 1)


async def test_of_a_token_and_a_deletion_at_once_the_deletion_has_the_last_word(
    control_database: Database, admin: Any
) -> None:
    """What is issued is either refused, or from before: no token is on the good side of what took the org away."""
    statement = "SELECT issued_before FROM control.revocations ORDER BY position DESC LIMIT 1"
    async with cases_on(control_database, SystemClock()) as cases:
        owner, kim, org_id = await acting_member(cases, Role.ADMIN)
        _, key = await cases.account(kim, "ci")
        topics = [f"org:{org_id}:runs"]
        for _ in range(15):
            first = await cases.sync_tokens.mint(kim, topics, 0, Surface.UNSTATED, ORIGIN)
            outcomes = await asyncio.gather(
                cases.sync_tokens.mint(kim, topics, 0, Surface.UNSTATED, ORIGIN),
                cases.api_keys.exchange(key, Use.WORKER, ORIGIN),
                cases.orgs.delete(owner, org_id, ORIGIN),
                return_exceptions=True,
            )
            tokens = [first.token, *(one.token for one in outcomes if isinstance(one, SyncToken | IssuedToken))]
            ended = (await admin.fetchval(statement)).timestamp()
            assert all(issued_s(token) < ended for token in tokens), outcomes
            await cases.orgs.restore(owner, org_id, ORIGIN)
            await cases.sessions.switch(kim, org_id, ORIGIN)
