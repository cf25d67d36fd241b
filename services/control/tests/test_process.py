"""`python -m services.control` as a process: settings, start, drain, kill."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from oa_base.refusal import Refusal
from oa_platform.auth.keys import dump_key, generate_key, public_keys_of_pem, thumbprint
from oa_platform.config.loading import load
from oa_testing.plain_http import plain_http
from oa_testing.postgres import ON_FAST, REPOSITORY, Database, free_port
from oa_testing.waiting import eventually
from services.control.config import ControlSettings, MailSettings
from services.control.tests.harness import HMAC_KEY, new_id, reason_of, running_control
from services.control.wiring import key_ring

START_DEADLINE_S = 60.0
PEM_PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


@pytest.fixture
def environment(control_database: Database, tmp_path: Path) -> dict[str, str]:
    """All that a control process needs, with secrets in files."""
    signing, mac = tmp_path / "signing.pem", tmp_path / "hmac"
    signing.write_text(dump_key(generate_key()))
    signing.chmod(0o644)
    mac.write_text(HMAC_KEY + "\n")
    return {
        "OA_PORT_BASE": str(free_port((0, 1000, 1001, 1002, 1100))),
        "OA_SERVICE_TOKEN": "a token",
        "OA_DATABASE_URL": control_database.control,
        **ON_FAST,
        "OA_SIGNING_KEY_FILE": str(signing),
        "OA_HMAC_KEY_FILE": str(mac),
        "OA_DEV_MAIL_FILE": str(tmp_path / "mail.jsonl"),
    }


@asynccontextmanager
async def process_of(environment: Mapping[str, str], output: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    roots = os.pathsep.join(str(REPOSITORY / root) for root in ("", "libs", "gen"))
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": roots}
    with output.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.control", env=inherited | dict(environment), stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_ready(environment: Mapping[str, str]) -> httpx.AsyncClient:
    base = int(environment["OA_PORT_BASE"])
    async with plain_http() as ops, asyncio.timeout(START_DEADLINE_S):
        while True:
            try:
                if (await ops.get(f"http://127.0.0.1:{base + 1100}/readyz")).status_code == 200:
                    return plain_http(f"http://127.0.0.1:{base}", timeout_s=START_DEADLINE_S)
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def start_challenge(http: httpx.AsyncClient, email: str, device: str) -> httpx.Response:
    path = "/openagents.control.v1.AuthService/StartChallenge"
    return await http.post(path, json={"email": email, "deviceId": device})


async def test_a_server_that_may_lose_commits_is_refused_in_one_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with process_of({**environment, "OA_DATABASE_MAY_LOSE_COMMITS": "false"}, tmp_path / "log") as process:
        async with asyncio.timeout(START_DEADLINE_S):
            assert await process.wait() == 2
    [line] = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("control: ")]
    assert line.startswith("control: invalid_setting (OA_DATABASE_MAY_LOSE_COMMITS): the database at 127.0.0.1:")
    assert "fsync and full_page_writes are off" in line


async def test_a_killed_control_goes_on_where_it_stopped(environment: dict[str, str], tmp_path: Path) -> None:
    output, device = tmp_path / "log", new_id("dev")
    async with process_of(environment, output) as process:
        http = await until_ready(environment)
        async with http:
            started = (await start_challenge(http, "ada@example.org", device)).json()
        process.kill()
        await process.wait()
    mails = tmp_path / "mail.jsonl"
    async with process_of(environment, output) as process:
        async with await until_ready(environment) as http:
            # Whether it left before or waits until the killed one is given up: once it was asked for, it comes.
            await eventually(lambda: mails.exists() and mails.read_text().endswith("\n"))
            code = json.loads(mails.read_text().splitlines()[0])["code"]
            guess = {"challengeId": started["challengeId"], "code": code, "deviceId": device}
            verified = await http.post("/openagents.control.v1.AuthService/VerifyChallenge", json=guess)
            assert verified.status_code == 200, verified.text
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_DEADLINE_S):
            assert await process.wait() == 0
    log = output.read_text()
    tokens = verified.json()["tokens"]
    for secret in (HMAC_KEY, tokens["accessToken"], tokens["refreshToken"], "a token"):
        assert secret not in log
    records = [json.loads(line) for line in log.splitlines()]
    requests = [record for record in records if record["event"] == "http_request"]
    assert {"request_id", "trace_id", "method", "status", "reason", "duration_ms"} <= set(requests[0])
    ops = {record["event"] for record in records}
    assert {"running", "ready", "draining", "stopped"} <= ops


async def test_a_port_in_use_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "log"
    with socket.create_server(("127.0.0.1", int(environment["OA_PORT_BASE"]))):
        async with process_of(environment, output) as process, asyncio.timeout(START_DEADLINE_S):
            assert await process.wait() == 2
    last = output.read_text().splitlines()[-1]
    assert "port_in_use" in output.read_text(), last
    assert "OA_HTTP_ADDRESS" in output.read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OA_HTTP_ADDRESS", "nowhere"),
        ("OA_ALLOWED_ORIGINS", "https://a.example.org/path"),
        ("OA_ALLOWED_ORIGINS", "*"),
        ("OA_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("OA_TRUSTED_PROXIES", "0.0.0.0/0"),
        ("OA_TRUSTED_PROXIES", "proxy.example.org"),
        ("OA_KHALA_URL", "http://127.0.0.1"),
        ("OA_CODE_PROVIDER", "pigeon"),
        ("OA_HTTP_MAX_BODY_BYTES", "1"),
        ("OA_CLIENT_VERSION_MIN", "999.0.0"),
        ("OA_CLIENT_VERSION_MIN", "latest"),
        ("OA_HTTP_DRAIN_S", "10.5"),  # longer than the drain
        ("OA_SIGN_IN_NETWORK_BURST", "0"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], variable: str, value: str) -> None:
    with pytest.raises(Refusal) as refused:
        load(ControlSettings, environment | {variable: value})
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)


def test_several_runtimes_need_the_address_for_workers(environment: dict[str, str]) -> None:
    several = environment | {"OA_RUNTIME_GRPC": "10.0.0.1:9081,10.0.0.2:9081"}
    with pytest.raises(Refusal) as refused:
        load(ControlSettings, several)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_RUNTIME_PUBLIC_GRPC")
    peers = load(ControlSettings, several | {"OA_RUNTIME_PUBLIC_GRPC": "runtime.example:443"}).peers
    assert str(peers.worker_address) == "runtime.example:443"
    assert (
        str(load(ControlSettings, environment | {"OA_RUNTIME_GRPC": "runtime:1"}).peers.worker_address) == "runtime:1"
    )


def test_keys_that_are_none_are_named_and_not_shown(environment: dict[str, str], tmp_path: Path) -> None:
    not_a_key = "MC4CAQAwBQYDK2VwBCIEIA"
    published = tmp_path / "published.pem"
    published.write_text("nothing")
    cases = (
        ("OA_SIGNING_KEY", {"OA_SIGNING_KEY": not_a_key}),
        ("OA_HMAC_KEY", {"OA_HMAC_KEY": "short"}),
        ("OA_PUBLISHED_KEYS_FILE", {"OA_PUBLISHED_KEYS_FILE": str(published)}),
        ("OA_PUBLISHED_KEYS_FILE", {"OA_PUBLISHED_KEYS_FILE": str(tmp_path / "absent.pem")}),
        ("OA_SMTP_HOST", {"OA_CODE_PROVIDER": "smtp"}),
        ("OA_SMTP_SENDER", {"OA_CODE_PROVIDER": "smtp", "OA_SMTP_HOST": "127.0.0.1"}),
    )
    for variable, changes in cases:
        with pytest.raises(Refusal) as refused:
            load(ControlSettings, environment | without_files(changes) | changes)
        assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)
        assert not_a_key not in str(refused.value)
    assert HMAC_KEY not in repr(load(ControlSettings, environment))


def without_files(changes: Mapping[str, str]) -> dict[str, str]:
    """A secret comes from its variable or from a file, never from both."""
    return {f"{variable}_FILE": "" for variable in changes}


def test_everything_that_needs_no_other_machine_is_named_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "rsa.pem").write_bytes(rsa_key)
    wrong = {
        "OA_SIGNING_KEY_FILE": str(tmp_path / "rsa.pem"),
        "OA_HTTP_ADDRESS": "0.0.0.0:8080",
        "OA_GRPC_ADDRESS": "0.0.0.0:9080",
        "OA_OPS_ADDRESS": "0.0.0.0:9180",
        "OA_CODE_PROVIDER": "smtp",
        "OA_SIGN_UP": "domains",
    }
    with pytest.raises(Refusal) as refused:
        load(ControlSettings, environment | wrong)
    for named in (
        *("OA_SIGNING_KEY is not an Ed25519 key", "OA_HTTP_ADDRESS", "OA_GRPC_ADDRESS", "OA_OPS_ADDRESS"),
        *("OA_SMTP_HOST", "OA_SMTP_SENDER", "OA_SIGN_UP_DOMAINS"),
    ):
        assert named in refused.value.message
    allowed = {name: value for name, value in wrong.items() if name.endswith("_ADDRESS")}
    assert load(ControlSettings, environment | allowed | {"OA_ALLOW_PLAINTEXT": "true"}).tls.allow_plaintext


def test_the_next_key_is_published_before_it_signs(environment: dict[str, str], tmp_path: Path) -> None:
    published = tmp_path / "published.pem"
    published.write_text(PEM_PUBLIC * 2)
    ring = key_ring(load(ControlSettings, environment | {"OA_PUBLISHED_KEYS_FILE": str(published)}).keys)
    keys = ring.public_keys
    assert len(keys) == 2, "each key once, the signing one first"
    assert thumbprint(keys[0]) == ring.signing.kid
    assert len(public_keys_of_pem(PEM_PUBLIC)) == 1


async def test_a_token_outlives_the_key_that_signed_it(control_database: Database, tmp_path: Path) -> None:
    old, following = generate_key(), generate_key()
    published = tmp_path / "published.pem"
    published.write_bytes(
        old.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    async with running_control(control_database, tmp_path, OA_SIGNING_KEY=dump_key(old)) as control:
        token = await control.access_token()
    pem = dump_key(following)
    async with running_control(
        control_database, tmp_path, OA_PUBLISHED_KEYS_FILE=str(published), OA_SIGNING_KEY=pem
    ) as control:
        assert (await control.ok("control.SessionService/GetCaller", {}, token))["email"] == "ada@example.org"
        keys = (await control.http.get("/.well-known/jwks.json")).json()["keys"]
        assert {key["kid"] for key in keys} == {old.kid, following.kid}
    async with running_control(control_database, tmp_path, OA_SIGNING_KEY=pem) as control:
        assert reason_of(await control.call("control.SessionService/GetCaller", {}, token)) == "invalid_token"


async def test_a_lame_duck_answers_new_connections(environment: dict[str, str], tmp_path: Path) -> None:
    base = int(environment["OA_PORT_BASE"])
    async with process_of({**environment, "OA_LAME_DUCK_S": "600"}, tmp_path / "log") as process:
        await (await until_ready(environment)).aclose()
        process.terminate()
        async with plain_http() as ops, asyncio.timeout(START_DEADLINE_S):
            while (await ops.get(f"http://127.0.0.1:{base + 1100}/readyz")).status_code != 503:
                await asyncio.sleep(0.02)
        async with plain_http() as client:
            assert (await client.get(f"http://127.0.0.1:{base}/.well-known/jwks.json")).status_code == 200
        process.terminate()
        assert await process.wait() == 0


def _in_production(environment: Mapping[str, str], tmp_path: Path) -> dict[str, str]:
    """What control needs there, with a mail relay that nobody asks."""
    mac = tmp_path / "production.hmac"
    mac.write_text(secrets.token_urlsafe(48))
    for path in (mac, Path(environment["OA_SIGNING_KEY_FILE"])):
        path.chmod(0o400)
    changed = {
        "OA_ENV": "production",
        "OA_SERVICE_TOKEN": secrets.token_urlsafe(32),
        "OA_HMAC_KEY_FILE": str(mac),
        "OA_CODE_PROVIDER": "smtp",
        "OA_SMTP_HOST": "127.0.0.1",
        "OA_SMTP_SENDER": "codes@example.org",
        "OA_DEV_MAIL_FILE": "",
    }
    return {**environment, **changed}


async def test_production_starts_with_what_production_needs(environment: dict[str, str], tmp_path: Path) -> None:
    production = _in_production(environment, tmp_path)
    async with process_of(production, tmp_path / "log") as process:
        await (await until_ready(production)).aclose()
        process.terminate()
        assert await process.wait() == 0


async def test_production_refuses_everything_of_a_trial_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    refused = {**environment, "OA_ENV": "production", "OA_CODE_PROVIDER": "console"}
    said = await _refusal_of(refused, tmp_path / "log")
    for variable in ("OA_CODE_PROVIDER", "OA_DEV_MAIL_FILE", "OA_SERVICE_TOKEN", "OA_SIGNING_KEY_FILE"):
        assert f"{variable} " in said


_SMTP = {"OA_CODE_PROVIDER": "smtp", "OA_SMTP_SENDER": "codes@example.org"}


@pytest.mark.parametrize(
    ("host", "tls", "refused"),
    [("mail.example.org", "none", True), ("mail.example.org", "starttls", False), ("127.0.0.1", "none", False)],
)
def test_production_sends_no_code_that_others_read_on_the_way(host: str, tls: str, refused: bool) -> None:
    mail = load(MailSettings, _SMTP | {"OA_SMTP_HOST": host, "OA_SMTP_TLS": tls})
    assert [variable for variable, _ in mail.production_problems()] == ["OA_SMTP_TLS"] * refused


@pytest.mark.parametrize("role", ["owner", "admin"])
async def test_production_refuses_a_role_that_may_do_more(
    environment: dict[str, str], control_database: Database, tmp_path: Path, role: str
) -> None:
    url = str(getattr(control_database, role))
    said = await _refusal_of({**_in_production(environment, tmp_path), "OA_DATABASE_URL": url}, tmp_path / "log")
    assert "invalid_setting (OA_DATABASE_URL): OA_DATABASE_URL signs in as" in said


async def _refusal_of(environment: Mapping[str, str], output: Path) -> str:
    async with process_of(environment, output) as process, asyncio.timeout(START_DEADLINE_S):
        assert await process.wait() == 2
    return await asyncio.to_thread(output.read_text)
