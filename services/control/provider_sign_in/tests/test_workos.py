"""WorkOS through its SDK, against a server that speaks its API.

All workers of the tests import this module, and one of them needs the SDK, which is slow to import.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_testing.postgres import Database
from services.control.provider_sign_in.domain import Asked, Identity
from services.control.provider_sign_in.limits import MAX_ANSWER_BYTES
from services.control.provider_sign_in.tests.workos_api import ADA, API_KEY, CLIENT_ID, WorkOsApi, running_workos
from services.control.tests.cases import ORIGIN, cases_on
from services.control.tests.harness import new_id

if TYPE_CHECKING:
    from services.control.provider_sign_in.door.workos import WorkOsClient, WorkOsProvider

REDIRECT = "http://127.0.0.1:4711/callback"
ASKED = Asked(REDIRECT, state="s" * 43, nonce="n" * 43, verifier="v" * 43)


def provider_of(client: WorkOsClient) -> WorkOsProvider:
    from services.control.provider_sign_in.door.workos import WorkOsProvider

    return WorkOsProvider(client)


@pytest.fixture(scope="module")
def running() -> Iterator[WorkOsApi]:
    with running_workos() as api:
        yield api


@pytest.fixture
def api(running: WorkOsApi) -> Iterator[WorkOsApi]:
    yield running
    running.user, running.more, running.answer = WorkOsApi().user, {}, None


@pytest_asyncio.fixture
async def workos(api: WorkOsApi) -> AsyncIterator[WorkOsProvider]:
    from services.control.provider_sign_in.door.workos import WorkOsClient

    async with provider_of(WorkOsClient("WorkOS", api.url, CLIENT_ID, API_KEY, "", timeout_s=30.0)) as provider:
        yield provider


async def code_of(api: WorkOsApi, workos: WorkOsProvider) -> str:
    brought = api.page(await workos.authorization_url(ASKED))
    assert brought["state"] == ASKED.state
    return brought["code"]


async def test_it_vouches_for_a_person(api: WorkOsApi, workos: WorkOsProvider) -> None:
    identity = await workos.identity(ASKED, await code_of(api, workos))
    assert identity == Identity(api.url, "user_01ADA", "Ada@Example.org", email_verified=True)
    assert (api.pages[-1]["provider"], "organization_id" in api.pages[-1]) == ("authkit", False)
    async with provider_of(replace(workos._client, organization="org_01X")) as of_an_organization:
        await code_of(api, of_an_organization)
    assert (api.pages[-1]["organization_id"], "provider" in api.pages[-1]) == ("org_01X", False)
    assert API_KEY not in repr(workos._client)


async def test_a_code_is_good_once_and_only_with_its_verifier(api: WorkOsApi, workos: WorkOsProvider) -> None:
    code = await code_of(api, workos)
    await workos.identity(ASKED, code)
    other = replace(ASKED, verifier="w" * 43)
    for asked, brought in ((ASKED, code), (ASKED, "guessed"), (other, await code_of(api, workos))):
        with pytest.raises(Refusal) as refused:
            await workos.identity(asked, brought)
        assert refused.value.reason == "provider_refused"
        assert "hunter2" not in refused.value.message


GOOD = {"user": ADA, "access_token": "a", "refresh_token": "r"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((403, '{"code": "email_verification_required", "message": "hunter2"}'), "provider_refused"),
        ((422, '{"message": "hunter2"}'), "provider_refused"),
        ((401, '{"error": "invalid_client"}'), "provider_unavailable"),
        ((400, '{"error": "unauthorized_client"}'), "provider_unavailable"),
        ((429, "{}"), "provider_unavailable"),
        ((503, "<html>hunter2</html>"), "provider_unavailable"),
        ((200, "<html>hunter2</html>"), "provider_unavailable"),
        ((200, "[]"), "provider_unavailable"),
        ((200, '{"user": {"id": 7}}'), "provider_unavailable"),
        ((200, '{"user": null}'), "provider_unavailable"),
        ((500, "[]"), "provider_unavailable"),
        ((400, '{"error": {}}'), "provider_refused"),
        ((200, json.dumps({**GOOD, "access_token": "a" * MAX_ANSWER_BYTES})), "provider_unavailable"),
    ],
)
async def test_what_goes_wrong_there_has_a_reason_here(
    api: WorkOsApi, workos: WorkOsProvider, answer: tuple[int, str], reason: str
) -> None:
    code = await code_of(api, workos)
    api.answer = answer
    with pytest.raises(Refusal) as refused:
        await workos.identity(ASKED, code)
    assert refused.value.reason == reason
    assert "hunter2" not in refused.value.message


async def test_a_wrong_key_and_a_server_that_is_away_are_failures_of_the_provider(
    api: WorkOsApi, workos: WorkOsProvider
) -> None:
    for client in (replace(workos._client, api_key="wrong"), replace(workos._client, url="http://127.0.0.1:9")):
        async with provider_of(client) as other:
            with pytest.raises(Refusal, match="provider_unavailable"):
                await other.identity(ASKED, await code_of(api, workos))


async def test_whoever_only_looks_as_somebody_is_nobody(api: WorkOsApi, workos: WorkOsProvider) -> None:
    api.more = {"impersonator": {"email": "support@workos.example", "reason": "to help"}}
    with pytest.raises(Refusal, match="provider_refused"):
        await workos.identity(ASKED, await code_of(api, workos))


async def test_a_person_comes_by_workos_and_stays_the_same(
    control_database: Database, api: WorkOsApi, workos: WorkOsProvider
) -> None:
    async with cases_on(control_database, SystemClock(), providers={"workos": workos}) as cases:
        users = set()
        for email in ("Ada@Example.org", "countess@example.org"):
            api.user["email"] = email
            device = new_id("dev")
            begun = await cases.provider_sign_in.start("workos", device, REDIRECT, ORIGIN)
            brought = api.page(begun.authorization_url)
            signed_in = await cases.provider_sign_in.finish(
                begun.begun.sign_in_id, device, brought["state"], brought["code"], ORIGIN
            )
            users.add(signed_in.user)
    assert {user.email for user in users} == {"ada@example.org"}
