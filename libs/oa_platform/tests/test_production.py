"""Production refuses what is good for a trial alone, all at once, each with its variable and what to do."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import asyncpg
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_base.refusal import Refusal
from oa_platform.auth.keys import SigningKey, dump_key, generate_key, weak_key
from oa_platform.config.loading import group, load
from oa_platform.config.production import DEVELOPMENT_MARK, others_may_read, weakness
from oa_platform.config.shared import DatabaseSettings, JwksSettings, ServiceSettings
from oa_platform.postgres.roles import check_roles
from oa_testing.peers.pg_front import pg_front
from oa_testing.postgres import DEVELOPMENT, ON_FAST, Database

GOOD_TOKEN = secrets.token_urlsafe(32)


@dataclass(frozen=True, kw_only=True)
class Sample(ServiceSettings):
    """A service with keys from control."""

    service: ClassVar[str] = "projector"
    jwks: JwksSettings = group(JwksSettings)


@dataclass(frozen=True, kw_only=True)
class Stored(ServiceSettings):
    """A service with a database."""

    service: ClassVar[str] = "runtime"
    database: DatabaseSettings = group(DatabaseSettings)


GOOD = {"OA_SERVICE_TOKEN": GOOD_TOKEN, "OA_CONTROL_URL": "https://control.example"}
BAD = [
    ({"OA_SERVICE_TOKEN": "x" * 64}, "OA_SERVICE_TOKEN has less than 8 different characters; make a random one"),
    ({"OA_SERVICE_TOKEN": GOOD_TOKEN[:31]}, "OA_SERVICE_TOKEN has less than 32 characters; make a random one"),
    ({"OA_SERVICE_TOKEN": GOOD_TOKEN[:16] * 3}, "OA_SERVICE_TOKEN repeats itself; make a random one"),
    ({"OA_SERVICE_TOKEN": f"{DEVELOPMENT_MARK}-{GOOD_TOKEN}"}, "OA_SERVICE_TOKEN was made by a local stack; make one"),
    ({"OA_CONTROL_URL": "http://control:8080"}, "OA_CONTROL_URL is plain http to another machine"),
]


def _problems(env: dict[str, str]) -> str:
    with pytest.raises(Refusal) as caught:
        load(Sample, {**GOOD, **env})
    assert caught.value.reason == "invalid_setting"
    assert GOOD_TOKEN[:16] not in str(caught.value)
    return caught.value.message


@pytest.mark.parametrize(("env", "text"), BAD, ids=[text.partition(";")[0] for _, text in BAD])
def test_what_production_refuses_development_takes(env: dict[str, str], text: str) -> None:
    assert text in _problems(env)
    assert load(Sample, {**GOOD, **env, **DEVELOPMENT}).production is False


@pytest.mark.parametrize(
    "url", ["https://control.example", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"]
)
def test_production_is_the_default_and_takes_what_is_right(url: str) -> None:
    assert load(Sample, {**GOOD, "OA_CONTROL_URL": url}).production is True


def test_everything_is_said_at_once() -> None:
    message = _problems({"OA_SERVICE_TOKEN": "short", "OA_CONTROL_URL": "http://control", "OA_GRPC_CALL_DRAIN_S": "11"})
    for variable in ("OA_SERVICE_TOKEN", "OA_CONTROL_URL", "OA_GRPC_CALL_DRAIN_S"):
        assert variable in message


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o400, True), (0o600, True), (0o640, False), (0o604, False), (0o620, False), (0o601, False)]
)
def test_a_secret_is_read_from_a_file_that_is_ours_alone(tmp_path: Path, mode: int, fine: bool) -> None:
    path = tmp_path / "token"
    path.write_text(GOOD_TOKEN)
    path.chmod(mode)
    env = {"OA_CONTROL_URL": "https://control.example", "OA_SERVICE_TOKEN_FILE": str(path)}
    if fine:
        assert load(Sample, env).identity.service_token.reveal() == GOOD_TOKEN
    else:
        with pytest.raises(Refusal, match="OA_SERVICE_TOKEN_FILE names a file that others may read"):
            load(Sample, env)


@pytest.mark.parametrize(("mode", "open_to_others"), [(0o440, False), (0o460, True), (0o444, True), (0o400, False)])
def test_a_file_of_another_owner_may_be_read_by_the_group(mode: int, open_to_others: bool) -> None:
    """As Kubernetes mounts a secret for a process that is not root."""
    status = os.stat_result((0o100000 | mode, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    assert others_may_read(status) is open_to_others


def test_random_secrets_are_not_weak() -> None:
    for _ in range(200):
        assert not weakness(secrets.token_hex(16))
        assert not weakness(secrets.token_bytes(32))


@pytest.mark.parametrize("seed", [bytes(32), b"\x01" * 32, bytes(range(16)) * 2, b"abcdefg" * 4 + b"abcd"])
def test_a_key_that_could_be_guessed_is_named(seed: bytes) -> None:
    pem = dump_key(SigningKey("", Ed25519PrivateKey.from_private_bytes(seed)))
    (problem,) = weak_key("OA_SIGNING_KEY", pem)
    assert problem[1].startswith("OA_SIGNING_KEY is a key that could be guessed; make one")
    assert not list(weak_key("OA_SIGNING_KEY", dump_key(generate_key())))


async def test_a_service_signs_in_as_a_role_that_owns_nothing(runtime_database: Database) -> None:
    await check_roles(_stored(runtime_database.runtime))
    with pytest.raises(Refusal, match="SUPERUSER; sign in as a role that owns nothing") as caught:
        await check_roles(_stored(runtime_database.admin))
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_DATABASE_URL")
    with pytest.raises(Refusal, match=r"'oa_owner', which owns .*runtime"):
        await check_roles(_stored(runtime_database.owner))


async def test_the_first_look_at_the_database_says_that_it_waits(runtime_database: Database) -> None:
    async with pg_front(runtime_database.port) as front:
        front.refusals = [("57P03", "no")] * 2
        with structlog.testing.capture_logs() as logs:
            await check_roles(_stored(runtime_database.runtime.replace(f":{runtime_database.port}", f":{front.port}")))
    assert [log["event"] for log in logs] == ["waiting_for_database"]


@pytest.mark.parametrize("lost", ["SELECT ON runtime.runs", "USAGE ON SCHEMA runtime"])
async def test_a_service_may_read_its_schema(runtime_database: Database, lost: str) -> None:
    await check_roles(_stored(runtime_database.runtime))
    owner = await asyncpg.connect(runtime_database.owner)
    try:
        await owner.execute(f"REVOKE {lost} FROM runtime_app")
    finally:
        await owner.close()
    text = r"'runtime_app', which may not read .*runtime\.runs\b.*; sign in as the service's own role, and give it the"
    with pytest.raises(Refusal, match=text) as caught:
        await check_roles(_stored(runtime_database.runtime))
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_DATABASE_URL")


def _stored(url: str) -> Stored:
    return load(Stored, {"OA_SERVICE_TOKEN": GOOD_TOKEN, "OA_DATABASE_URL": url, **ON_FAST})
