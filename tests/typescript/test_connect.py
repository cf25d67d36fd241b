"""Connect's own client for TypeScript, and our source of sync tokens, get on with the edge: in Node and in Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio

from oa_platform.auth.keys import SigningKey
from oa_platform.auth.tokens import sign_token
from oa_testing.postgres import Database
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from services.control.tests.harness import running_control
from tests.typescript.package import COMPILE_TIMEOUT_S, compiled, following

pytestmark = pytest.mark.timeout(COMPILE_TIMEOUT_S + 60)

REFUSED = ["Unauthenticated missing_authorization", "InvalidArgument invalid_value"]
CALLED = [{"binary": binary, "granted": [True], "refused": REFUSED} for binary in (False, True)]


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """The package, compiled."""
    compiled()


@pytest_asyncio.fixture
async def options(control_database: Database, tmp_path: Path, origin: str) -> AsyncIterator[dict[str, Any]]:
    """What the client has to be told of a control that lets the page in."""
    pages: dict[str, Any] = {"OA_ALLOWED_ORIGINS": origin}
    async with running_control(control_database, tmp_path, with_runtime=False, **pages) as control:
        person = await control.sign_in()
        user, token = person["userId"], person["tokens"]["accessToken"]
        expired = expired_of(token, control.key)
        yield {
            "control": control.base_url, "token": token, "topic": f"user:{user}:runs", "user": user, "expired": expired
        }  # fmt: skip


def expired_of(token: str, key: SigningKey) -> str:
    """The same access token, as it is when its time is over."""
    claims = jwt.decode(token, options={"verify_signature": False})
    past = {"exp": claims["iat"] - 60, "iat": claims["iat"] - 120, "nbf": claims["iat"] - 120}
    kind = {"kind": principal_pb2.PRINCIPAL_KIND_USER}
    return sign_token(claims_pb2.AccessTokenClaims(**(claims | kind | past)), key)


def minted(options: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a sync token that is asked for with an access token that has expired: it is renewed once."""
    granted = [f"run:{options['user']}:events", options["topic"]]
    return {"granted": granted, "refused": "owner_mismatch", "asked": 2, "renewals": 1}


async def test_a_connect_client_in_node_calls_and_gets_a_token(options: dict[str, Any]) -> None:
    async with following("connect_in_node", options) as program:
        line = await program.until("called")
        assert (line["results"], line["minted"]) == (CALLED, minted(options))


async def test_on_a_page_of_another_origin(options: dict[str, Any], origin: str) -> None:
    page = {"page": f"{origin}/test/connect.html", "fields": options}
    async with following("chromium", page) as browser:
        first = await browser.until("open", otherwise="absent")
        if first["kind"] == "absent":
            pytest.skip(f"no Chromium can be started here: {first['message']}")
        done = await browser.until("text", finished=True, otherwise="defect")
        assert json.loads(done["text"]) == [CALLED, minted(options)]
    assert browser.left == []
