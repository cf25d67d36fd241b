"""`oa login --provider` as a person types it, with a browser that is a program, a real provider and a real control."""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
import pytest_asyncio

from apps.cli.commands.identity.provider_login import answer_of, receiver_at
from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_base.refusal import Refusal
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.control.provider_sign_in.tests.openid import CLIENT_ID, SECRET, OpenId, running_openid
from services.control.tests.harness import Control, running_control

LIST_PROVIDERS = "/openagents.control.v1.ProviderSignInService/ListProviders"
BROWSER = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(sys.argv[1]).read())
"""


@pytest.fixture
def openid() -> Iterator[OpenId]:
    with running_openid() as running:
        yield running


@pytest_asyncio.fixture
async def control(control_database: Database, openid: OpenId, tmp_path: Path) -> AsyncIterator[Control]:
    provider: dict[str, Any] = {
        "OA_OIDC_ISSUER": openid.issuer,
        "OA_OIDC_CLIENT_ID": CLIENT_ID,
        "OA_OIDC_CLIENT_SECRET": SECRET,
    }
    async with running_control(control_database, tmp_path, with_runtime=False, **provider) as running:
        yield running


@pytest.fixture
def person(control: Control, tmp_path: Path) -> Program:
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    opens = f"{sys.executable} {browser} %s"
    return Program(tmp_path, {"OA_CONTROL_URL": control.base_url, "BROWSER": opens})


async def test_a_browser_brings_the_answer_and_the_session_is_kept(person: Program, openid: OpenId) -> None:
    done = await person("login", "--provider", "oidc")
    assert done.status == Exit.OK, done.stderr
    assert "as ada@example.org" in done.stdout.decode()
    assert openid.issuer in done.stderr, "the page is shown, for a browser that does not open by itself"
    assert (await person("session", "list", "--json")).status == Exit.OK
    unknown = await person("login", "--provider", "workos", "--json")
    assert (unknown.status, unknown.error["reason"]) == (Exit.REFUSED, "not_found")
    assert "oidc" in unknown.error["message"]


async def test_an_old_sign_in_is_made_fresh_and_the_session_stays(
    person: Program, openid: OpenId, control_database: Database
) -> None:
    assert (await person("login", "--provider", "oidc")).status == Exit.OK
    [before] = (await person("session", "list", "--json")).documents
    connection = await asyncpg.connect(control_database.admin)
    try:
        await connection.execute("UPDATE control.sessions SET created_at = created_at - interval '3 hours'")
    finally:
        await connection.close()
    make = ("key", "create", "laptop", "--personal", "--scope", "runs.read", "--ttl", "1d")
    refused = await person(*make)
    assert refused.status == Exit.SIGN_IN
    assert "sign_in_too_old" in refused.stderr
    assert "oa login" in refused.stderr
    assert (await person("session", "list")).status == Exit.OK, "nothing else asks for it"
    assert (await person("login", "--provider", "oidc")).status == Exit.OK
    assert (await person(*make)).status == Exit.OK
    [after] = (await person("session", "list", "--json")).documents
    assert after["sessionId"] == before["sessionId"]
    assert after["signInTime"] > before["signInTime"]


async def test_where_the_browser_is_elsewhere_the_answer_is_pasted(person: Program, openid: OpenId) -> None:
    async with person.started("login", "--provider", "oidc", "--paste") as login:
        assert login.stdin is not None
        assert login.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            url = await _page(login.stderr)
            brought = await asyncio.to_thread(openid.page, url)
            login.stdin.write(f"http://127.0.0.1:9/callback?{urlencode(brought)}\n".encode())
            assert await login.wait() == Exit.OK
    wrong = await person("login", "--provider", "oidc", "--paste", text="https://example.org/\n")
    assert wrong.status == Exit.REFUSED
    assert "paste the whole address" in wrong.stderr
    foreign = await person(
        "login", "--provider", "oidc", "--paste", text="http://127.0.0.1:9/callback?code=a&state=b\n"
    )
    assert foreign.status == Exit.REFUSED
    assert "another sign-in" in foreign.stderr


async def test_where_codes_are_turned_off_the_one_provider_is_taken(
    control_database: Database, openid: OpenId, tmp_path: Path
) -> None:
    browser = tmp_path / "browser.py"
    browser.write_text(BROWSER)
    provider = {"OA_OIDC_ISSUER": openid.issuer, "OA_OIDC_CLIENT_ID": CLIENT_ID, "OA_OIDC_CLIENT_SECRET": SECRET}
    only: dict[str, Any] = provider | {"OA_SIGN_IN_BY_CODE": "0"}
    async with running_control(control_database, tmp_path, with_runtime=False, **only) as control:
        person = Program(tmp_path, {"OA_CONTROL_URL": control.base_url, "BROWSER": f"{sys.executable} {browser} %s"})
        script = await person("login", "--email", "ada@example.org", "--json")
        assert (script.status, script.error["reason"]) == (Exit.REFUSED, "unknown_method")
        assert script.error["metadata"] == {"providers": "oidc"}
        done = await person("login", text="ada@example.org\n")
        assert done.status == Exit.OK, done.stderr
        assert "codes by mail are turned off" in done.stderr
        providers = await control.http.post(LIST_PROVIDERS, json={})
    assert providers.json()["codesOff"] is True


async def _page(stderr: asyncio.StreamReader) -> str:
    shown = ""
    while "Paste" not in shown:
        shown += (await stderr.readline()).decode()
    return next(line for line in shown.splitlines() if line.startswith("http"))


def test_only_the_answer_to_this_sign_in_is_received() -> None:
    with receiver_at(0) as receiver:
        port = int(receiver.redirect_uri.split(":")[2].split("/")[0])
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        idle.connect()
        assert _status(port, "/callback?state=&code=early") == 404, "nothing has begun"
        receiver.state = "ours"
        for wrong in (
            "/",
            "/callback",
            "/callback?code=x",
            "/callback?code=x&state=theirs",
            "/other?code=x&state=ours",
        ):
            assert _status(port, wrong) == 404, wrong
        assert _status(port, "/callback?code=x&state=ours") == 200
        assert _status(port, "/callback?code=second&state=ours") == 404
        assert answer_of(receiver.answered(PATIENCE_S)) == ("ours", "x")
        idle.close()
        with pytest.raises(Refusal, match="--port"), receiver_at(port):
            pass
    with receiver_at(0) as nobody, pytest.raises(Refusal, match="challenge_expired"):
        nobody.answered(0)


def _status(port: int, target: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", target)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hunter2", "invalid_value"),
        ("http://[/callback?code=a&state=b", "invalid_value"),
        ("http://127.0.0.1:9/callback?code=a", "invalid_value"),
        ("http://127.0.0.1:9/callback?state=b", "invalid_value"),
        ("http://127.0.0.1:9/callback?error=hunter2&state=b", "provider_refused"),
    ],
)
def test_what_is_no_answer_is_never_repeated(address: str, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        answer_of(address)
    assert refused.value.reason == reason
    assert "hunter2" not in refused.value.message
