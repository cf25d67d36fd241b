"""A closed site lets in operators with a bypass, and nobody else, at every replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.operators.routes import RouteGroup, RouteOperators
from oa_testing.postgres import Database
from services.control.tests.harness import CONTROL_TOKEN, LOOPBACK, Control, reason_of, running_control
from services.control.tests.web import built_shell, operators_of, until

BROWSER = {"accept": "text/html"}
CALL = "control.AuthService/StartChallenge"


async def closed(control: Control) -> None:
    """Wait until a replica lets nobody in."""

    async def is_closed() -> bool:
        return (await control.http.get("/")).status_code == 503

    await until(is_closed)


async def test_web_and_api_are_closed_and_opened_together(control_database: Database, tmp_path: Path) -> None:
    root = str(built_shell(tmp_path / "web"))
    async with (
        running_control(control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=root) as one,
        running_control(control_database, tmp_path, with_runtime=False) as two,
        operators_of(one) as operators,
    ):
        bypass, _ = await operators.create_bypass(60_000)  # before: nobody is locked out
        await operators.start_maintenance("Back at <noon>", 90_000)
        for control in (one, two):
            await closed(control)
            page = await control.http.get("/runs", headers=BROWSER)
            assert (page.status_code, page.headers["retry-after"]) == (503, "90")
            assert "Back at &lt;noon&gt;" in page.text
            assert page.headers["cache-control"] == "no-store"
            call = await control.call(CALL, {"email": "ada@example.org"})
            assert (call.status_code, reason_of(call), call.headers["retry-after"]) == (503, "in_maintenance", "90")
            assert (await control.http.get("/.well-known/jwks.json")).status_code == 200
            assert await control.process.readiness.failures() == {}
        await operators.start_maintenance("Later", 1_000)  # other words, the same maintenance

        async def says_so() -> bool:
            return "Later" in (await one.http.get("/", headers=BROWSER)).text

        await until(says_so)
        let_in = await one.http.get("/", headers=BROWSER | {"x-oa-bypass": bypass})
        assert (let_in.status_code, "shell" in let_in.text) == (200, True)
        assert (await one.http.get("/", headers={"x-oa-bypass": f"{bypass}0"})).status_code == 503
        first = await one.http.get(
            httpx.URL(one.base_url).copy_with(
                raw_path=f"//evil.example/runs?a=&oa%2Dbypass={bypass}&x=1%2B+&b=%ff".encode()
            ),
            headers=BROWSER,
        )
        assert (first.status_code, first.headers["location"]) == (303, "/evil.example/runs?a=&x=1%2B+&b=%ff")
        cookie = first.headers["set-cookie"]
        assert all(word in cookie for word in ("__Host-oa-bypass=", "HttpOnly", "Secure", "SameSite=lax", "Path=/"))
        known = await one.http.get("/", headers=BROWSER | {"cookie": cookie.partition(";")[0]})
        assert known.status_code == 200

        await operators.end_maintenance()
        await operators.end_maintenance()  # is open already

        async def is_open() -> bool:
            statuses = {(await control.call(CALL, {})).status_code for control in (one, two)}
            return statuses == {400}

        await until(is_open)
        await operators.start_maintenance("", 0)
        await closed(one)
        assert (await one.http.get("/", headers={"x-oa-bypass": bypass})).status_code == 503  # was for the last one


async def test_only_operators_decide(control: Control) -> None:
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        for token, reason in ((CONTROL_TOKEN, "caller_not_allowed"), ("other", "service_not_accepted")):
            with pytest.raises(Refusal, match=reason):
                await RouteOperators(channel, token).end_maintenance()
    outside = await control.call("control.RouteService/EndMaintenance", {})
    assert reason_of(outside) == "unknown_method"


async def test_the_audit_log_says_that_a_decision_came_over_the_internal_port(control: Control, admin: Any) -> None:
    async with operators_of(control) as operators:
        await operators.set(RouteGroup("app", ("/app",), "", 0))
        await operators.start_maintenance("", 0)
    rows = await admin.fetch("SELECT action, actor, network FROM control.audit_events")
    assert {tuple(row) for row in rows} == {
        ("route.set", "operator", "service:operator"),
        ("maintenance.started", "operator", "service:operator"),
    }
