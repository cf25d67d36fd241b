"""Orgs over the real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from services.control.api_keys.app.keys import Wanted
from services.control.api_keys.domain import Use
from services.control.orgs.domain import acting_as
from services.control.orgs.limits import MAX_ENDED_AT_A_TIME, MAX_OWNED_ORGS
from services.control.policy.domain import Role, StandingPrincipal
from services.control.tests.cases import DELETE_GRACE, ORIGIN, Cases
from services.control.tests.harness import new_id


async def shared(cases: Cases, owner: StandingPrincipal, name: str = "team") -> str:
    """The id of an org of several people, with this owner."""
    return (await cases.orgs.create(owner, name, ORIGIN)).org.org_id


async def test_a_person_makes_an_org_and_names_it(cases: Cases, admin: Any) -> None:
    ada = await cases.principal()
    org_id = await shared(cases, ada)
    renamed = await cases.orgs.rename(ada, org_id, "search", ORIGIN)
    assert (renamed.org.name, renamed.role, renamed.org.personal) == ("search", Role.OWNER, False)
    own, listed = await cases.orgs.list(ada)
    assert (own.org.org_id, own.org.personal) == (ada.org_id, True)
    assert listed == renamed == await cases.orgs.get(ada, org_id)
    rows = await admin.fetch("SELECT action, actor, org_id FROM control.audit_events WHERE action LIKE 'org.%'")
    assert [tuple(row) for row in rows] == [
        ("org.created", ada.subject, org_id),
        ("org.renamed", ada.subject, org_id),
    ]
    await cases.orgs.rename(ada, ada.org_id, "mine", ORIGIN)
    assert (await cases.orgs.get(ada, ada.org_id)).org.name == "mine"


@pytest.mark.parametrize("blank", [" ", "\u3000\t\n"])
async def test_what_people_name_has_a_name_that_they_can_see(cases: Cases, admin: Any, blank: str) -> None:
    ada = await cases.principal()
    for call in (
        cases.orgs.create(ada, blank, ORIGIN),
        cases.orgs.rename(ada, ada.org_id, blank, ORIGIN),
        cases.account(ada, blank),
        cases.api_keys.create(ada, "", Wanted(blank, ttl_s=3600), ORIGIN),
    ):
        with pytest.raises(Refusal) as refused:
            await call
        assert (refused.value.reason, refused.value.field) == ("missing_field", "name")
    assert (await cases.orgs.get(ada, ada.org_id)).org.name == "ada"
    for table in ("service_accounts", "api_keys"):
        assert not await admin.fetchval(f"SELECT count(*) FROM control.{table}"), table  # noqa: S608 - constants


async def test_another_persons_org_is_like_none(cases: Cases) -> None:
    ada, eve = await cases.principal(), await cases.principal("eve@example.org")
    told = []
    for org_id in (await shared(cases, ada), ada.org_id, new_id("org")):
        for call in (
            cases.orgs.get(eve, org_id),
            cases.orgs.rename(eve, org_id, "hers", ORIGIN),
            cases.orgs.delete(eve, org_id, ORIGIN),
            cases.orgs.restore(eve, org_id, ORIGIN),
        ):
            with pytest.raises(Refusal, match="not_found") as refused:
                await call
            told.append((refused.value.message, refused.value.field))
    assert len(set(told)) == 1


async def test_a_service_account_has_no_orgs(cases: Cases) -> None:
    ada = await cases.principal()
    _, key = await cases.account(ada, "ci")
    script = await cases.admitted((await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token)
    assert await cases.orgs.list(script) == ()
    with pytest.raises(Refusal, match="missing_scope"):
        await cases.orgs.create(script, "its own", ORIGIN)
    with pytest.raises(Refusal, match="not_found"):
        await cases.orgs.rename(script, ada.org_id, "its own", ORIGIN)


async def test_a_person_owns_a_limited_number_of_orgs(cases: Cases) -> None:
    ada = await cases.principal()
    calls = [cases.orgs.create(ada, "o", ORIGIN) for _ in range(MAX_OWNED_ORGS + 3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result.reason for result in results if isinstance(result, Refusal)]
    assert refused == ["limit_reached"] * 3
    assert len(await cases.orgs.list(ada)) == 1 + MAX_OWNED_ORGS


async def test_ones_own_org_stays(cases: Cases) -> None:
    ada = await cases.principal()
    for call in (
        cases.orgs.delete(ada, ada.org_id, ORIGIN),
        cases.members.leave(ada, ada.org_id, ORIGIN),
        cases.invitations.create(ada, ada.org_id, "bob@example.org", Role.MEMBER, ORIGIN),
    ):
        with pytest.raises(Refusal, match="personal_org"):
            await call


async def test_nobody_acts_in_a_deleted_org_until_it_is_restored(cases: Cases, admin: Any) -> None:
    signed_in = await cases.signed_in()
    ada = await cases.admitted(signed_in.tokens.access_token)
    org_id = await shared(cases, ada)
    await cases.sessions.switch(ada, org_id, ORIGIN)
    tokens = await cases.sessions.refresh(signed_in.tokens.refresh_token, ada.device_id, ORIGIN)
    acting = await cases.admitted(tokens.access_token)
    assert acting.org_id == tokens.org_id == org_id
    _, key = await cases.account(acting, "ci")
    script = (await cases.api_keys.exchange(key, Use.EDGE, ORIGIN)).token

    closed = await cases.orgs.delete(acting, org_id, ORIGIN)
    assert closed.org.delete_at == cases.clock.now() + DELETE_GRACE
    assert await cases.orgs.delete(acting, org_id, ORIGIN) == closed, "a second time changes nothing"

    with pytest.raises(Refusal, match="org_changed"):
        await cases.admitted(tokens.access_token)
    with pytest.raises(Refusal, match="token_revoked"):
        await cases.admitted(script)
    with pytest.raises(Refusal, match="org_deleted"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    row = await admin.fetchrow("SELECT subject, org_id, reason, place_change, issued_before FROM control.revocations")
    assert tuple(row) == ("", org_id, "org_deleted", "lost", cases.clock.now())
    again = await cases.sessions.refresh(tokens.refresh_token, ada.device_id, ORIGIN)
    back = await cases.admitted(again.access_token)
    assert back.org_id == ada.org_id, "the session has its person's own org"
    for call in (
        cases.sessions.switch(back, org_id, ORIGIN),
        cases.orgs.rename(back, org_id, "n", ORIGIN),
        cases.members.leave(back, org_id, ORIGIN),
        cases.invitations.create(back, org_id, "bob@example.org", Role.MEMBER, ORIGIN),
    ):
        with pytest.raises(Refusal, match="org_deleted"):
            await call

    assert (await cases.orgs.restore(back, org_id, ORIGIN)).org.delete_at is None
    assert (await cases.admitted(script)).org_id == org_id
    await cases.sessions.switch(back, org_id, ORIGIN)
    await cases.orgs.restore(back, org_id, ORIGIN)
    changes = await admin.fetch("SELECT reason, place_change FROM control.revocations ORDER BY position")
    assert [tuple(row) for row in changes] == [("org_deleted", "lost"), ("org_restored", "back")]
    actions = await admin.fetch("SELECT action FROM control.audit_events WHERE org_id = $1 ORDER BY audit_id", org_id)
    assert [row["action"] for row in actions if row["action"].startswith("org.")] == [
        "org.created",
        "org.deleted",
        "org.restored",
    ]


async def test_a_deleted_org_is_gone_after_its_grace(cases: Cases, admin: Any, clock: FakeClock) -> None:
    ada = await cases.principal()
    org_id, kept = await shared(cases, ada), await shared(cases, ada)
    _, key = await cases.account(acting_as(ada, await cases.orgs.get(ada, org_id)), "ci")
    await cases.orgs.delete(ada, org_id, ORIGIN)
    await clock.advance((DELETE_GRACE - timedelta(seconds=1)).total_seconds())
    await cases.orgs.sweep()
    assert (await cases.orgs.get(ada, org_id)).org.delete_at is not None
    with pytest.raises(Refusal, match="org_deleted"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    await clock.advance(1)
    with pytest.raises(Refusal, match="invalid_api_key"):
        await cases.api_keys.exchange(key, Use.WORKER, ORIGIN)
    await cases.orgs.sweep()
    with pytest.raises(Refusal, match="not_found"):
        await cases.orgs.restore(ada, org_id, ORIGIN)
    assert {one.org.org_id for one in await cases.orgs.list(ada)} == {ada.org_id, kept}
    ended = await admin.fetchrow("SELECT target, actor FROM control.audit_events WHERE action = 'org.ended'")
    assert tuple(ended) == (org_id, "")
    await cases.orgs.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.audit_events WHERE action = 'org.ended'") == 1


async def test_a_sweep_ends_a_limited_number_of_orgs(cases: Cases, admin: Any) -> None:
    await admin.execute(
        """INSERT INTO control.orgs (org_id, name, created_at, delete_at)
        SELECT 'org_' || n, 'n', now(), $1 FROM generate_series(1, $2) n""",
        cases.clock.now(),
        MAX_ENDED_AT_A_TIME + 1,
    )
    count_open = "SELECT count(*) FROM control.orgs WHERE delete_at IS NOT NULL AND gone_at IS NULL"
    left = []
    for _ in range(3):
        await cases.orgs.sweep()
        left.append(await admin.fetchval(count_open))
    assert left == [1, 0, 0]
