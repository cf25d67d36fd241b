"""Connect's own client for TypeScript, in Node and in a headless Chromium, gets on with the edge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oa_testing.postgres import Database
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
        topic = f"user:{person['userId']}:runs"
        yield {"control": control.base_url, "token": person["tokens"]["accessToken"], "topic": topic}


async def test_in_node(options: dict[str, Any]) -> None:
    async with following("connect_in_node", options) as program:
        assert (await program.until("called"))["results"] == CALLED


async def test_on_a_page_of_another_origin(options: dict[str, Any], origin: str) -> None:
    page = {"page": f"{origin}/test/connect.html", "fields": options}
    async with following("chromium", page) as browser:
        first = await browser.until("open", otherwise="absent")
        if first["kind"] == "absent":
            pytest.skip(f"no Chromium can be started here: {first['message']}")
        done = await browser.until("text", finished=True, otherwise="defect")
        assert json.loads(done["text"]) == CALLED
