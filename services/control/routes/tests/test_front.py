"""Web requests get to the side that operators, people and cohorts name, at every replica."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.operators.routes import RouteGroup, RouteOperators
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.control.tests.harness import Control, reason_of, running_control
from services.control.tests.web import SCRIPT, SCRIPT_NAME, built_shell, legacy_process, operators_of, until

BROWSER = {"accept": "text/html"}


class Site(NamedTuple):
    """Two replicas with both sides, and what operators call at the first."""

    one: Control
    two: Control
    operators: RouteOperators
    legacy_url: str


@asynccontextmanager
async def site(database: Database, tmp_path: Path, **overrides: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(legacy_process())
        root = str(built_shell(tmp_path / "web"))
        one, two = [
            await stack.enter_async_context(
                running_control(
                    database, tmp_path, with_runtime=False, OA_WEB_ROOT=root, OA_LEGACY_URL=url, **overrides
                )
            )
            for _ in range(2)
        ]
        yield Site(one, two, await stack.enter_async_context(operators_of(one)), url)


async def side_of(control: Control, path: str = "/app", **headers: str) -> str:
    """Who answers a new person."""
    control.http.cookies.clear()
    sent = BROWSER | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await control.http.get(path, headers=sent)
    assert answer.status_code == 200, answer.text
    return "shell" if "<title>shell" in answer.text else "legacy"


async def both(at: Site, expected: str, path: str = "/app") -> None:
    """Wait until both replicas answer so."""
    for control in (at.one, at.two):

        async def answers(control: Control = control) -> bool:
            return await side_of(control, path) == expected

        await until(answers)


async def test_groups_move_at_every_replica_and_go_back_with_one_command(
    control_database: Database, tmp_path: Path
) -> None:
    async with site(control_database, tmp_path) as at:
        await both(at, "legacy")  # what no group names stays where it was
        await at.operators.set(RouteGroup("app", ["/app"], "shell", 0))
        await both(at, "shell")
        assert await side_of(at.one, "/other") == "legacy"
        await at.operators.set(RouteGroup("app", ["/app"], "legacy", 0))
        await both(at, "legacy")
        await at.operators.roll_back()
        await both(at, "shell")
        found = await at.operators.roll_back()
        await both(at, "legacy")
        assert (found.version, found.groups) == (4, [])
        with pytest.raises(Refusal, match="not_found"):
            await at.operators.roll_back()
        await at.operators.set(RouteGroup("app", ["/app"], "shell", 0))
        await at.operators.delete("app")
        await both(at, "legacy")
        with pytest.raises(Refusal, match="not_found"):
            await at.operators.delete("app")


async def test_an_operator_undoes_no_change_that_another_one_has_just_made(
    control_database: Database, tmp_path: Path
) -> None:
    async with site(control_database, tmp_path) as at:
        app = RouteGroup("app", ["/app"], "", 10)
        seen = await at.operators.set(app, expected_version=(await at.operators.read()).version)
        other = await at.operators.set(RouteGroup("app", ["/app"], "legacy", 0))
        changes: list[Callable[[int], Awaitable[object]]] = [
            lambda version: at.operators.set(app, version),
            lambda version: at.operators.delete("app", version),
            at.operators.roll_back,
            lambda version: at.operators.start_canary("app", 0, 0, version),
        ]
        for change in changes:
            with pytest.raises(Refusal, match="version_conflict") as refused:
                await change(seen)
            assert (refused.value.field, refused.value.metadata) == ("expected_version", {"version": str(other)})
        assert (await at.operators.read()).version == other, "nothing was done"
        assert (await at.operators.roll_back(other)).groups == [app]
        outcomes = await asyncio.gather(
            *(at.operators.set(RouteGroup("app", ["/app"], "", percent), other + 1) for percent in (1, 2, 3)),
            return_exceptions=True,
        )
        assert [isinstance(one, Refusal) for one in outcomes].count(False) == 1


async def test_cohorts_stick_and_people_may_choose(control_database: Database, tmp_path: Path) -> None:
    async with site(control_database, tmp_path) as at:
        await at.operators.set(RouteGroup("app", ["/app"], "", 100))
        await both(at, "shell")
        assert await side_of(at.one, x_oa_side="legacy") == "legacy"
        assert await side_of(at.one, cookie="oa-side=legacy") == "legacy"
        await at.operators.set(RouteGroup("app", ["/app"], "", 50))

        async def divides() -> bool:
            return {await side_of(at.one) for _ in range(20)} == {"shell", "legacy"}

        await until(divides)
        at.one.http.cookies.clear()
        first = await at.one.http.get("/app", headers=BROWSER)
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert "HttpOnly" in first.headers["set-cookie"]
        assert "cookie" in first.headers["vary"]
        sides = set()
        for control in (at.one, at.two):
            for _ in range(10):
                sides.add(await side_of(control, cookie=cookie))
        assert len(sides) == 1


async def test_a_page_that_has_begun_to_load_gets_its_files_whatever_is_decided(
    control_database: Database, tmp_path: Path
) -> None:
    async with site(control_database, tmp_path) as at:
        await at.operators.set(RouteGroup("all", ["/"], "legacy", 0))
        await both(at, "legacy", "/")
        assert (await at.one.http.get(f"/{SCRIPT_NAME}", headers={"accept-encoding": "identity"})).content == SCRIPT
        # The API and its documents never move.
        assert reason_of(await at.one.call("control.NoService/None", {})) == "unknown_method"
        assert (await at.one.http.get("/.well-known/jwks.json")).json()["keys"]


async def test_what_an_installation_has_not_is_no_side(control_database: Database, tmp_path: Path) -> None:
    root = built_shell(tmp_path / "web")
    async with (
        running_control(control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=str(root)) as control,
        operators_of(control) as operators,
    ):
        with pytest.raises(Refusal, match="invalid_value") as refused:
            await operators.set(RouteGroup("app", ["/app"], "legacy", 0))
        assert "OA_LEGACY_URL" in refused.value.message
        await operators.set(RouteGroup("app", ["/app"], "", 0))
        with pytest.raises(Refusal, match="invalid_value"):
            await operators.start_canary("app", 0, 0)
        assert await side_of(control) == "shell"  # the only side there is
        dots = await _raw(control, "/app/%2e%2e/x")
        assert reason_of(dots) == "invalid_value"


async def _raw(control: Control, path: str) -> httpx.Response:
    return await control.http.get(httpx.URL(control.base_url).copy_with(raw_path=path.encode()))


async def test_the_way_through_to_the_legacy_side(control_database: Database, tmp_path: Path) -> None:
    async with site(control_database, tmp_path) as at:
        sent = {
            "connection": "x-mine",
            "x-mine": "for this connection",
            "x-forwarded-for": "203.0.113.9",
            "x-forwarded-proto": "https",
            "forwarded": "for=203.0.113.9",
            "x-oa-bypass": "secret",
            "cookie": "a=1; oa-cohort=x; __Host-oa-bypass=secret",
            "authorization": "Basic bGVnYWN5",
            "host": "app.example.org",
        }
        answer = await at.one.http.post("/echo?x=%2F&y", content=b"\x00body", headers=sent)
        said = json.loads(answer.content)
        seen = said["headers"]
        assert (said["method"], said["path"], said["body"]) == ("POST", "/echo?x=%2F&y", "\x00body")
        assert seen["x-forwarded-for"] == "127.0.0.1"  # nobody said that this caller is a proxy
        assert (seen["x-forwarded-host"], seen["x-forwarded-proto"]) == ("app.example.org", "http")
        assert (seen["host"], seen["cookie"], seen["authorization"]) == ("app.example.org", "a=1", "Basic bGVnYWN5")
        assert not {"x-mine", "forwarded", "x-oa-bypass"} & set(seen)
        assert seen["x-request-id"] == answer.headers["x-request-id"]
        page = await at.one.http.get("/", headers=BROWSER)
        assert page.headers["x-frame-options"] == "SAMEORIGIN"  # its own policy, and none of ours
        assert "content-security-policy" not in page.headers

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a" * 1000
            yield b"b"

        streamed = await at.one.http.put("/echo", content=chunks())
        assert json.loads(streamed.content)["body"] == "a" * 1000 + "b"
        for status in (204, 304, 404, 500):
            passed = await at.one.http.get(f"/status/{status}")
            assert passed.status_code == status
        assert (await at.one.http.head("/")).headers["content-length"] == str(len("<title>legacy</title>"))


async def test_one_persons_cookies_are_never_anothers(control_database: Database, tmp_path: Path) -> None:
    async with site(control_database, tmp_path) as at:
        answer = await at.one.http.get("/cookie")
        assert answer.headers.get_list("set-cookie") == ["legacy=1; Path=/", "two=2; Path=/"]
        at.one.http.cookies.clear()
        assert "cookie" not in json.loads((await at.one.http.get("/echo")).content)["headers"]


async def test_an_answer_comes_as_it_is_made(control_database: Database, tmp_path: Path) -> None:
    async with (
        site(control_database, tmp_path) as at,
        asyncio.timeout(PATIENCE_S),
        at.one.http.stream("GET", "/slow") as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"first"
        await at.two.http.get("/go")
        assert await anext(pieces) == b"second"


async def test_trusted_proxies_are_believed(control_database: Database, tmp_path: Path) -> None:
    async with site(control_database, tmp_path, OA_TRUSTED_PROXIES="127.0.0.0/8") as at:
        sent = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
        seen = json.loads((await at.one.http.get("/echo", headers=sent)).content)["headers"]
        assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("203.0.113.9, 127.0.0.1", "https")
        lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "203.0.113.9")]  # the first one is a claim
        seen = json.loads((await at.one.http.get("/echo", headers=lines)).content)["headers"]
        assert seen["x-forwarded-for"] == "192.0.2.1, 203.0.113.9, 127.0.0.1"


async def test_the_limits_of_the_legacy_side(control_database: Database, tmp_path: Path) -> None:
    limits = {
        "OA_LEGACY_MAX_BODY_BYTES": "1024",
        "OA_LEGACY_IDLE_TIMEOUT_S": "2",  # what is answered at once takes less
        "OA_LEGACY_MAX_REQUESTS": "1",
    }
    async with site(control_database, tmp_path, **limits) as at:
        large = await at.one.http.post("/echo", content=b"x" * 1025)
        assert (large.status_code, reason_of(large)) == (413, "request_too_large")
        assert (await at.one.http.post("/echo", content=b"x" * 1024)).status_code == 200
        stalled = await at.one.http.get("/stall")
        assert (stalled.status_code, reason_of(stalled)) == (504, "deadline_exceeded")
        async with at.one.http.stream("GET", "/slow"):
            busy = await at.one.http.get("/echo")
            assert (busy.status_code, reason_of(busy)) == (429, "overloaded")

        async def has_room() -> bool:
            return (await at.one.http.get("/echo")).status_code == 200

        await until(has_room)  # the client went away, and with it the request to the legacy side
        upgrade = {"connection": "upgrade", "upgrade": "websocket"}
        refused = await at.one.http.get("/socket", headers=upgrade)
        assert (refused.status_code, reason_of(refused)) == (501, "unsupported_upgrade")


async def test_one_network_leaves_room_for_the_others(control_database: Database, tmp_path: Path) -> None:
    limits = {"OA_LEGACY_MAX_REQUESTS_OF_NETWORK": "1", "OA_TRUSTED_PROXIES": "127.0.0.0/8"}
    async with site(control_database, tmp_path, **limits) as at:
        ours, others = {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "203.0.113.10"}
        async with at.one.http.stream("GET", "/slow", headers=ours):
            busy = await at.one.http.get("/echo", headers=ours)
            assert (busy.status_code, reason_of(busy)) == (429, "overloaded")
            assert (await at.one.http.get("/echo", headers=others)).status_code == 200


async def test_a_legacy_side_that_is_gone(control_database: Database, tmp_path: Path) -> None:
    async with legacy_process() as url:
        pass
    async with running_control(control_database, tmp_path, with_runtime=False, OA_LEGACY_URL=url) as control:
        gone = await control.http.get("/")
        assert (gone.status_code, reason_of(gone)) == (503, "unavailable")
