"""What would give whoever stole a token more than the token does needs a sign-in that is not too old."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.edge.door.methods import open_methods
from services.control.policy.domain import (
    Access,
    AnyPrincipal,
    Scope,
    Scoped,
    SessionOnly,
    StandingPrincipal,
    sign_in_denied,
)
from services.control.policy.tests.principals import NOW, principals
from services.control.tests.cases import cases_on
from services.control.tests.harness import Control, new_id, reason_of

FRESH = sorted(
    name
    for name, method in open_methods().items()
    if isinstance(method.access, Scoped | SessionOnly) and method.access.fresh
)
CREATE_KEY = "control.ApiKeyService/CreateApiKey"
AN_HOUR = timedelta(hours=1)


ANY_ACCESS: tuple[Access, ...] = (
    AnyPrincipal(),
    Scoped(Scope.RUNS_READ),
    SessionOnly(),
    Scoped(Scope.RUNS_READ, fresh=True),
    SessionOnly(fresh=True),
)


@given(
    principals,
    st.sampled_from(ANY_ACCESS),
    st.none() | st.integers(-10, 10_000).map(lambda age: NOW - timedelta(seconds=age)),
    st.booleans(),
)
def test_only_an_old_sign_in_of_a_session_is_denied_and_only_where_it_matters(
    principal: StandingPrincipal, access: Access, signed_in_at: Any, limited: bool
) -> None:
    principal = replace(principal, session_id=new_id("ses"), signed_in_at=signed_in_at)
    denied = sign_in_denied(principal, access, NOW, AN_HOUR if limited else None)
    fresh = isinstance(access, Scoped | SessionOnly) and access.fresh
    old = signed_in_at is None or NOW - signed_in_at > AN_HOUR
    assert (denied is not None) == (fresh and limited and principal.has_session and old)
    if denied:
        assert (denied.reason, denied.metadata) == ("sign_in_too_old", {"max_age_s": "3600"})


def test_the_page_for_operators_has_every_method() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "operations" / "policy.md").read_text("utf-8")
    shown = re.findall(r"^\| `(\w+/\w+)` \| [^|]+ \|$", page, re.M)
    assert sorted(f"openagents.control.v1.{name}" for name in shown) == FRESH


async def test_every_such_method_is_refused_until_its_person_signs_in_again(control: Control, admin: Any) -> None:
    first = await control.sign_in()
    token, org_id = first["tokens"]["accessToken"], first["orgId"]
    key = {"name": "before", "scopes": ["runs.read"], "ttlSeconds": 3600}
    await control.ok(CREATE_KEY, key, token)
    await admin.execute("UPDATE control.sessions SET created_at = created_at - interval '3 hours'")
    bodies = _bodies(org_id)
    assert sorted(bodies) == FRESH, "a new method needs a body here"
    for name, body in bodies.items():
        refused = await control.call(name.replace("openagents.control.v1.", "control."), body, token)
        assert (refused.status_code, reason_of(refused)) == (401, "sign_in_too_old"), name
        assert '"max_age_s":"7200"' in refused.text.replace(" ", "")
    await control.ok("control.SessionService/GetCaller", {}, token)

    again = await control.sign_in(device_id=first["deviceId"], refresh_token=first["tokens"]["refreshToken"])
    assert again["sessionId"] == first["sessionId"]
    await control.ok(CREATE_KEY, key | {"name": "after"}, token)  # the session counts, not the token
    trail = await admin.fetchval(
        "SELECT count(*) FROM control.audit_events WHERE action = 'call.denied' AND reason = 'sign_in_too_old'"
    )
    assert trail == len(FRESH)


def _bodies(org_id: str) -> dict[str, dict[str, object]]:
    """Good requests, which would be done."""
    org: dict[str, object] = {"orgId": org_id}
    member = org | {"userId": new_id("usr")}
    named: dict[str, dict[str, object]] = {
        "AccountService/DeleteAccount": {"userId": new_id("usr")},
        "ApiKeyService/CreateApiKey": {"name": "n", "scopes": ["runs.read"], "ttlSeconds": 3600},
        "ApiKeyService/RotateApiKey": {"apiKeyId": new_id("apk")},
        "InvitationService/CreateInvitation": org | {"email": "b@example.org", "role": "ROLE_MEMBER"},
        "MemberService/SetMemberRole": member | {"role": "ROLE_VIEWER"},
        "MemberService/RemoveMember": member,
        "MemberService/TransferOwnership": member,
        "OrgService/DeleteOrg": org,
        "ServiceAccountService/CreateServiceAccount": {"name": "n"},
    }
    return {f"openagents.control.v1.{name}": body for name, body in named.items()}


async def test_without_a_limit_a_sign_in_is_as_old_as_its_session(control_database: Database, clock: FakeClock) -> None:
    for max_age, refused in ((None, None), (AN_HOUR, "sign_in_too_old")):
        async with cases_on(control_database, clock, max_sign_in_age=max_age) as cases:
            person = await cases.principal()
            await clock.advance(3601)
            decision = await cases.gate.decide(person, SessionOnly(fresh=True))
            assert (decision.denied.reason if decision.denied else None) == refused
            assert (await cases.gate.decide(person, SessionOnly())).denied is None
