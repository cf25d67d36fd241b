"""The gate for clients that are older than what the site serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_base.version import VERSION
from oa_client.cpython.network import HttpxHttp
from oa_client.edge.calls import Edge
from oa_testing.postgres import Database
from openagents.control.v1 import auth_service_pb2
from services.control.edge.domain import CLIENT_BUILD_HEADER as HEADER
from services.control.edge.domain import ClientWindow, Version
from services.control.tests.harness import Control, field_of, new_id, reason_of, running_control

WINDOW = ClientWindow(Version.of("0.9.2"), Version.of("0.10.0"))
ROOT = Path(__file__).parents[4]


def reason(build: str) -> str:
    """Why it is refused; empty when it is not."""
    try:
        WINDOW.check(build)
    except Refusal as refused:
        return refused.reason
    return ""


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ("oa-cli/0.9.2", ""),
        ("oa-cli/0.9.10", ""),
        ("oa-cli/0.10.0", ""),
        ("oa-worker/1.0.0", ""),  # newer than the site
        ("oa-cli/0.9.2+build.7", ""),
        ("oa-cli/0.9.1", "unsupported_client_build"),
        ("oa-python/0.0.0", "unsupported_client_build"),
        ("khala-ts/0.8.99", "unsupported_client_build"),
        ("oa-cli/0.9.2-rc.1", "unsupported_client_build"),
        ("oa-cli/0.9.2.dev3", "unsupported_client_build"),
        ("oa-cli/0.9.2rc1", "unsupported_client_build"),
        ("oa-cli/0.9.1, oa-cli/0.9.2", "invalid_client_build"),
        ("oa-cli/0.9", "invalid_client_build"),
        ("oa-cli/v0.9.2", "invalid_client_build"),
        ("oa-cli/" + "9" * 5000, "invalid_client_build"),
        ("oa-cli/", "invalid_client_build"),
        ("", ""),
        ("curl/8.1.0", ""),  # programs of others have versions of their own
        ("their-oa-cli/0.0.1", ""),
        ("oa-cli", ""),
    ],
)
def test_older_clients_of_ours_are_refused(build: str, expected: str) -> None:
    assert reason(build) == expected


def test_the_clients_of_this_release_say_that_they_are() -> None:
    assert f'BUILD_ID = "khala-ts/{VERSION}"' in (ROOT / "clients/typescript/src/control.ts").read_text()
    assert Version.of(VERSION).is_release


START = "/openagents.control.v1.AuthService/StartChallenge"
CREATE_RUN = "/openagents.runtime.v1.RunService/CreateRun"
GET_CALLER = "/openagents.control.v1.SessionService/GetCaller?encoding=json&message=%7B%7D"
OLD = {HEADER: "oa-cli/0.0.9"}


async def test_an_old_client_is_told_which_versions_the_site_serves(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, OA_CLIENT_VERSION_MIN=VERSION) as control:
        token = await control.access_token()
        signed_in = {"authorization": f"Bearer {token}"}
        for response in (
            await control.http.post(START, headers=OLD, content=b"{"),
            await control.http.post(CREATE_RUN, headers=OLD | signed_in),
            await control.http.get(GET_CALLER, headers=OLD),
            await control.http.get(GET_CALLER, headers=OLD | signed_in),
        ):
            found = (response.status_code, reason_of(response), field_of(response))
            assert found == (426, "unsupported_client_build", HEADER)
            assert f"{VERSION} to {VERSION}" in response.json()["message"]
            window = response.json()["details"][0]["debug"]["metadata"]
            assert (window["lowest_version"], window["newest_version"]) == (VERSION, VERSION)
            assert "0.0.9" not in response.text
        for build in (f"oa-cli/{VERSION}", "oa-cli/99.0.0", "theirs/0.0.1"):
            assert (await control.http.get(GET_CALLER, headers=signed_in | {HEADER: build})).status_code == 200
        # What others need to check tokens and to read the contract is no matter of versions.
        for path in ("/.well-known/jwks.json", "/openapi.json"):
            assert (await control.http.get(path, headers=OLD)).status_code == 200


async def test_the_python_client_is_refused_for_good_with_the_window(
    control_database: Database, tmp_path: Path
) -> None:
    request = auth_service_pb2.StartChallengeRequest(email="ada@example.org", device_id=new_id("dev"))
    method = START.removeprefix("/")
    answer = auth_service_pb2.StartChallengeResponse
    async with (
        running_control(control_database, tmp_path, OA_CLIENT_VERSION_MIN=VERSION) as control,
        HttpxHttp() as http,
    ):
        old, new = (Edge(control.base_url, http, f"oa-cli/{version}") for version in ("0.0.9", VERSION))
        with pytest.raises(Refusal) as refused:
            await old.call(method, request, answer, attempts=5)
        assert (await new.call(method, request, answer)).resend_after_ms
    assert (refused.value.reason, refused.value.info.action.value) == ("unsupported_client_build", "upgrade")
    assert refused.value.metadata["lowest_version"] == VERSION


async def test_without_the_setting_versions_are_not_looked_at(control: Control) -> None:
    headers = OLD | {"authorization": f"Bearer {await control.access_token()}"}
    assert (await control.http.get(GET_CALLER, headers=headers)).status_code == 200
