"""AuditService at the edge: who may read what, and what is refused."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_client.core.audit import AuditFilters
from oa_client.cpython.operators.audit import AuditOperators
from oa_testing.waiting import PATIENCE_S
from services.control.tests.harness import LOOPBACK, OPERATOR_TOKEN, Control, field_of, new_id, reason_of

LIST, OWN, READ = (
    f"control.AuditService/{method}" for method in ("ListAuditEvents", "ListOwnAuditEvents", "ReadAuditLog")
)


async def test_an_owner_reads_what_the_org_did(control: Control) -> None:
    ann, bob = await control.sign_in("ann@example.org"), await control.sign_in("bob@example.org")
    token = ann["tokens"]["accessToken"]
    await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "ci"}, token)
    events = (await control.ok(LIST, {}, token))["events"]
    assert [event["action"] for event in events] == ["api_key.created", "service_account.created", "session.signed_in"]
    assert {event["actor"] for event in events} == {ann["userId"]}
    assert {event["orgId"] for event in events} == {ann["orgId"]}
    assert bob["userId"] not in str(await control.ok(OWN, {}, token))
    refused = {"outcome": "AUDIT_OUTCOME_REFUSED"}
    assert "events" not in await control.ok(LIST, refused, token)


async def test_a_running_service_seals(control: Control) -> None:
    signed_in = await control.sign_in()
    token = signed_in["tokens"]["accessToken"]
    async with asyncio.timeout(PATIENCE_S):
        while not (part := await control.ok(READ, {}, token)).get("events"):
            await asyncio.sleep(0.1)
    assert part["orgId"] == signed_in["orgId"]
    assert len(part["events"]) == int(part["head"]["sequence"])
    assert b"session.signed_in" in base64.b64decode(part["events"][0]["canonicalJson"])


@pytest.mark.parametrize(("role", "allowed"), [("owner", True), ("admin", True), ("member", False), ("viewer", False)])
async def test_only_owners_and_admins_read_it(control: Control, admin: Any, role: str, allowed: bool) -> None:
    token = (await control.sign_in())["tokens"]["accessToken"]
    await admin.execute("UPDATE control.memberships SET role = $1", role)
    for method in (LIST, READ):
        response = await control.call(method, {}, token)
        assert response.status_code == (200 if allowed else 403)
        assert allowed or reason_of(response) == "org_scope_denied"
    assert (await control.ok(OWN, {}, token))["events"]


async def test_a_script_sees_what_it_did_and_nothing_else(control: Control) -> None:
    token = await control.access_token()
    made = await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "ci"}, token)
    exchange = {"apiKey": made["apiKey"], "use": "TOKEN_USE_EDGE"}
    script = (await control.ok("control.ServiceAccountService/ExchangeKey", exchange))["token"]
    for method in (LIST, READ):
        assert reason_of(await control.call(method, {}, script)) == "missing_scope"
    events = (await control.ok(OWN, {}, script))["events"]
    assert [event["action"] for event in events] == ["call.denied", "call.denied", "service_account.key_exchanged"]
    assert [event["outcome"] for event in events] == [*["AUDIT_OUTCOME_REFUSED"] * 2, "AUDIT_OUTCOME_DONE"]


DENIED = "SELECT org_id, actor, target, reason FROM control.audit_events WHERE action = 'call.denied' ORDER BY audit_id"


async def test_a_denial_is_in_the_log_of_the_org_that_it_is_about(control: Control, admin: Any) -> None:
    """Whatever org the caller acts in: the owners of this one have to see who tries what."""
    ann, bob = await control.sign_in("ann@example.org"), await control.sign_in("bob@example.org")
    created = await control.ok("control.OrgService/CreateOrg", {"name": "Acme"}, ann["tokens"]["accessToken"])
    org_id = created["org"]["orgId"]
    add = "INSERT INTO control.memberships (org_id, user_id, role, created_at) VALUES ($1, $2, 'admin', now())"
    await admin.execute(add, org_id, bob["userId"])
    method = "control.MemberService/SetMemberRole"
    body = {"orgId": org_id, "userId": ann["userId"], "role": "ORG_ROLE_MEMBER"}
    denied = await control.call(method, body, bob["tokens"]["accessToken"])
    assert (denied.status_code, reason_of(denied)) == (403, "org_scope_denied")
    await admin.execute("UPDATE control.memberships SET role = 'viewer' WHERE user_id = $1", bob["userId"])
    assert (await control.call(method, body, bob["tokens"]["accessToken"])).status_code == 403
    found = [tuple(row) for row in await admin.fetch(DENIED)]
    assert found == [(org_id, bob["userId"], f"openagents.{method.replace('.', '.v1.')}", "org_scope_denied")] * 2


async def test_denials_about_keys_are_on_record(control: Control, admin: Any) -> None:
    signed_in = await control.sign_in()
    token = signed_in["tokens"]["accessToken"]
    made = await control.ok("control.ServiceAccountService/CreateServiceAccount", {"name": "ci"}, token)
    account = {"serviceAccountId": made["serviceAccount"]["serviceAccountId"]}
    [key] = (await control.ok("control.ApiKeyService/ListApiKeys", account, token))["keys"]
    await admin.execute("UPDATE control.memberships SET role = 'viewer'")
    calls = {
        "CreateApiKey": account | {"name": "more"},
        "ListApiKeys": account,
        "RotateApiKey": {"apiKeyId": key["apiKeyId"], "idempotencyKey": "one"},
        "RevokeApiKey": {"apiKeyId": key["apiKeyId"]},
    }
    for method, body in calls.items():
        assert (await control.call(f"control.ApiKeyService/{method}", body, token)).status_code == 403, method
    found = [(row["org_id"], row["target"].rpartition("/")[2]) for row in await admin.fetch(DENIED)]
    assert found == [(signed_in["orgId"], method) for method in calls]


async def test_pages_belong_to_their_list(control: Control) -> None:
    for _ in range(2):
        await control.sign_in()
    token = await control.access_token()
    first = await control.ok(LIST, {"pageSize": 2}, token)
    second = await control.ok(LIST, {"pageSize": 2, "pageToken": first["nextPageToken"]}, token)
    assert (len(first["events"]), len(second["events"]), "nextPageToken" in second) == (2, 1, False)
    other = await control.access_token("bob@example.org")
    for body, caller, method in (
        ({"pageToken": first["nextPageToken"], "action": "session.signed_in"}, token, LIST),
        ({"pageToken": first["nextPageToken"]}, other, LIST),
        ({"pageToken": first["nextPageToken"]}, token, OWN),
        ({"pageToken": "x"}, token, LIST),
    ):
        response = await control.call(method, body, caller)
        assert (reason_of(response), field_of(response)) == ("invalid_page_token", "page_token")


async def test_operators_read_the_log_of_every_org_that_there_is_or_was(control: Control, admin: Any) -> None:
    signed_in = await control.sign_in()
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:

        def of(org_id: str) -> AuditOperators:
            return AuditOperators(channel, OPERATOR_TOKEN, org_id)

        for org_id in (signed_in["orgId"], ""):
            assert (await of(org_id).page(AuditFilters())).events
            assert (await of(org_id).part(0)).org_id == org_id
        for call in (of(new_id("org")).page(AuditFilters()), of(new_id("org")).part(0)):
            with pytest.raises(Refusal) as refused:
                await call
            assert (refused.value.reason, refused.value.field) == ("not_found", "org_id")
        gone = new_id("org")
        await admin.execute(
            "INSERT INTO control.audit_events (occurred_at, action, reason, actor, org_id, target, network, request_id)"
            " VALUES (now(), 'org.ended', '', '', $1, $1, '', '')",
            gone,
        )
        assert [event.action for event in (await of(gone).page(AuditFilters())).events] == ["org.ended"]


async def test_a_place_beyond_the_end_is_refused(control: Control) -> None:
    response = await control.call(READ, {"afterSequence": 10**9}, await control.access_token())
    assert (reason_of(response), field_of(response)) == ("invalid_value", "after_sequence")


async def test_an_org_reads_nothing_of_another(control: Control) -> None:
    ann, bob = await control.access_token("ann@example.org"), await control.sign_in("bob@example.org")
    query = {"actor": bob["userId"]}
    assert "events" not in await control.ok(LIST, query, ann)
    assert "events" not in await control.ok(LIST, {"actor": new_id("usr")}, ann)
