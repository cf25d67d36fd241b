"""What a request's head must say, and what the heads of answers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oa_platform.auth.jwks import JWKS_PATH
from oa_testing.postgres import Database
from services.control.edge.door.openapi.document import OPENAPI_PATH
from services.control.tests.harness import Control, raw, reason_of, running_control
from services.control.tests.web import SCRIPT_NAME, built_shell

CALLER = "control.SessionService/GetCaller"
START = "/openagents.control.v1.AuthService/StartChallenge"
PATHS = [JWKS_PATH, OPENAPI_PATH, START, "/", "/nothing?x=y"]


async def refused(control: Control, head: str, body: bytes = b"") -> tuple[int, str, str]:
    """Status, reason and field of the answer to a request with these lines."""
    answer = await raw(control, f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
    lines, _, content = answer.partition(b"\r\n\r\n")
    info = json.loads(content)["details"][0]["debug"]
    return int(lines.split()[1]), info["reason"], info["metadata"]["field"]


HOSTS = [
    ("", "missing_field"),
    ("\r\nhost: x\r\nhost: x", "invalid_value"),
    ("\r\nhost: x\r\nhost: evil.example", "invalid_value"),
    ("\r\nhost: x, y", "invalid_value"),
    ("\r\nhost: x/y", "invalid_value"),
    ("\r\nhost: user@x", "invalid_value"),
    ("\r\nhost: x:http", "invalid_value"),
]


async def test_a_request_names_one_host(control: Control, subtests: pytest.Subtests) -> None:
    for path in PATHS:
        for lines, reason in HOSTS:
            with subtests.test(path=path, lines=lines):
                assert await refused(control, f"GET {path} HTTP/1.1{lines}") == (400, reason, "host")
    for host in ("x", "app.example.org:8080", "[2001:db8::1]:80", "127.0.0.1", "a_b-c.%41", "x:"):
        answer = await raw(control, f"GET {JWKS_PATH} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 "), host
    assert (await raw(control, f"GET {JWKS_PATH} HTTP/1.0\r\n\r\n".encode())).startswith(b"HTTP/1.1 200 ")


async def test_a_body_is_packed_by_no_transfer_coding(control: Control) -> None:
    for coding in ("gzip, chunked", "gzip\r\ntransfer-encoding: chunked"):
        head = f"POST {START} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: {coding}"
        answer = await refused(control, head, b"2\r\n{}\r\n0\r\n\r\n")
        assert answer == (501, "unsupported_encoding", "transfer-encoding"), coding
    head = f"POST {START} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: Chunked"
    assert await refused(control, head, b"2\r\n{}\r\n0\r\n\r\n") == (400, "missing_field", "email")


async def test_a_value_ends_before_its_blanks(control: Control) -> None:
    token = await control.access_token()
    path = "/openagents.control.v1.SessionService/GetCaller"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json \t\r\nconnection: close\r\n"
    head += f"authorization: Bearer {token} \t\r\ncontent-length: 2 \r\n\r\n{{}}"
    assert (await raw(control, head.encode())).startswith(b"HTTP/1.1 200 ")


async def test_a_trailer_is_nobodys_authority(control: Control) -> None:
    token = await control.access_token()
    head = "POST /openagents.control.v1.SessionService/GetCaller HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    answer = await raw(control, f"{head}authorization: Bearer {token}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"missing_authorization" in answer


async def test_an_answer_says_what_would_be_taken(control: Control) -> None:
    for token in ("", "x"):
        unknown = await control.call(CALLER, {}, token)
        assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    old = await control.call(CALLER, {}, connect_protocol_version="2")
    assert (old.status_code, old.headers["upgrade"], old.headers["connection"]) == (426, "HTTP/1.1", "upgrade")
    assert reason_of(old) == "unsupported_protocol_version"


async def test_answers_vary_by_origin_where_origins_are_listed(control_database: Database, tmp_path: Path) -> None:
    root, page = str(built_shell(tmp_path / "web")), "https://app.example.org"
    async with running_control(
        control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=root, OA_ALLOWED_ORIGINS=page
    ) as control:
        for path in (JWKS_PATH, OPENAPI_PATH, f"/{SCRIPT_NAME}", START):
            for headers in ({}, {"origin": page}, {"origin": "https://evil.example"}):
                answer = await control.http.get(path, headers=headers)
                vary = [name.strip().lower() for name in answer.headers["vary"].split(",")]
                assert vary.count("origin") == 1, (path, headers)
        script = await control.http.get(f"/{SCRIPT_NAME}")
        assert script.headers["vary"] == "accept-encoding, origin"
