"""What services find in their environment fits together: who is told what is accepted by whom."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from oa_base.refusal import Refusal
from oa_localstack.installation.environment import service_environment
from oa_localstack.installation.ports import USES, Ports
from oa_localstack.installation.secrets import Secrets, load_or_create
from oa_platform.auth.keys import SigningKey, dump_key
from oa_platform.config.callers import ACCEPTED, SERVICES
from oa_platform.config.loading import describe, load
from oa_platform.config.parsers import address, http_url, postgres_url, service_hashes
from oa_platform.config.production import DEVELOPMENT_MARK
from oa_platform.config.shared import ServiceSettings

SHARED = {"OA_CONTROL_URL", "OA_CONTROL_GRPC", "OA_RUNTIME_GRPC", "OA_PROJECTOR_GRPC", "OA_KHALA_URL"}
"""Addresses of the stack: every service gets all of them, whether it calls there or not."""


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return load_or_create(tmp_path / "secrets")


def _environments(secrets: Secrets, inherited: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    ports = Ports.from_env({})
    return {
        name: service_environment(
            name, ports=ports, secrets=secrets, home=Path("/srv/x/.oa"), inherited=inherited or {}
        )
        for name in SERVICES
    }


def test_a_token_is_accepted_exactly_where_its_service_calls(secrets: Secrets) -> None:
    environments = _environments(secrets)
    for called, env in environments.items():
        accepted = service_hashes().parse(env["OA_ACCEPTED_SERVICES"])
        assert sorted(accepted.values()) == sorted(ACCEPTED[called])
        for digest, caller in accepted.items():
            assert hashlib.sha256(secrets.service_tokens[caller].encode()).hexdigest() == digest
    for name, env in environments.items():
        assert env["OA_SERVICE_TOKEN"] == secrets.service_tokens[name]


def _settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.config")
    found = [item for _, item in inspect.getmembers(module, inspect.isclass) if issubclass(item, ServiceSettings)]
    return next(item for item in found if item.service == service)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_what_is_set_for_it_and_needs_nothing_else(secrets: Secrets, service: str) -> None:
    env, settings = _environments(secrets)[service], _settings_of(service)

    load(settings, env)

    known = {row.variable for row in describe(settings)}
    known |= {f"{row.variable}_FILE" for row in describe(settings) if row.secret}
    own = {name for name in env if name.startswith("OA_")} - SHARED - {use.env for use in USES}
    assert own - known == set()


def test_each_service_has_its_own_role_and_the_gateway_none(secrets: Secrets) -> None:
    environments = _environments(secrets)
    roles = {name: env.get("OA_DATABASE_URL", "//:").split("//")[1].split(":")[0] for name, env in environments.items()}

    assert roles == {
        "control": "control_app",
        "runtime": "runtime_app",
        "projector": "projector_app",
        "khala_gateway": "",
    }


def test_every_address_parses_and_none_is_shared(secrets: Secrets) -> None:
    listening: list[str] = []
    for env in _environments(secrets).values():
        own = [env[name] for name in env if name.startswith("OA_") and name.endswith("_ADDRESS")]
        listening.extend(str(address().parse(text)) for text in own)
        for variable in ("OA_CONTROL_GRPC", "OA_RUNTIME_GRPC", "OA_PROJECTOR_GRPC"):
            assert str(address().parse(env[variable])) == env[variable]
        assert http_url().parse(env["OA_CONTROL_URL"]) == "http://127.0.0.1:8080"
        if "OA_DATABASE_URL" in env:
            assert postgres_url().parse(env["OA_DATABASE_URL"]).reveal() == env["OA_DATABASE_URL"]
    assert len(listening) == len(set(listening)) == 10


def test_no_secret_is_in_the_environment_of_a_service_that_does_not_need_it(secrets: Secrets) -> None:
    for name, env in _environments(secrets).items():
        foreign = [token for other, token in secrets.service_tokens.items() if other != name]
        foreign.append(secrets.database_passwords["postgres"])
        foreign.append(secrets.database_passwords["oa_owner"])
        assert not [secret for secret in foreign if any(secret in value for value in env.values())]


def test_settings_of_the_shell_reach_services_but_do_not_break_the_stack(secrets: Secrets) -> None:
    env = _environments(secrets, {"OA_LOG_LEVEL": "debug", "OA_SERVICE_TOKEN": "stale", "OTEL_SDK_DISABLED": "true"})[
        "control"
    ]

    both = {"OA_SIGNING_KEY": "stale", "OA_SERVICE_TOKEN_FILE": "/stale", "OA_HMAC_KEY": "stale", "OA_PROXY_FILE": "/p"}
    others = _environments(secrets, both)["control"]
    assert both.keys() & others.keys() == {"OA_PROXY_FILE"}, "a secret comes from one place"
    assert env["OA_LOG_LEVEL"] == "debug"
    assert env["OTEL_SDK_DISABLED"] == "true"
    assert env["OA_SERVICE_TOKEN"] == secrets.service_tokens["control"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_takes_the_secrets_of_a_local_stack_in_production(secrets: Secrets, service: str) -> None:
    env = {**_environments(secrets, {})[service], "OA_ENV": "production"}
    with pytest.raises(Refusal) as caught:
        load(_settings_of(service), env)
    secret = {row.variable for row in describe(_settings_of(service)) if row.secret}
    for variable in {name.removesuffix("_FILE") for name in env} & secret:
        assert f"{variable} was made by a local stack" in caught.value.message


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_takes_a_secret_that_could_be_guessed_in_production(secrets: Secrets, service: str) -> None:
    env = {**_environments(secrets, {})[service], "OA_ENV": "production"}
    described = {row.variable for row in describe(_settings_of(service)) if row.secret}
    made = {name.removesuffix("_FILE") for name in env} & described - {"OA_DATABASE_URL"}
    seed = Ed25519PrivateKey.from_private_bytes(b"ab" * 16)
    keys = dict.fromkeys(("OA_SIGNING_KEY", "OA_RECEIPT_KEY"), dump_key(SigningKey("", seed)))
    weak = {variable: keys.get(variable, "ab" * 32) for variable in made}
    others = {name: value for name, value in env.items() if name.removesuffix("_FILE") not in made}
    with pytest.raises(Refusal) as caught:
        load(_settings_of(service), others | weak)
    for variable in made:
        fault = "is a key that could be guessed" if variable in keys else "has less than 8 different characters"
        assert f"{variable} {fault}" in caught.value.message
    assert "OA_SERVICE_TOKEN" in made


def test_keys_are_what_services_expect(secrets: Secrets) -> None:
    for path in (secrets.signing_key_file, secrets.receipt_key_file):
        assert isinstance(load_pem_private_key(path.read_bytes(), None), Ed25519PrivateKey)
    assert len(bytes.fromhex(secrets.hmac_key_file.read_text().removeprefix(f"{DEVELOPMENT_MARK}-"))) == 32
    assert secrets.signing_key_file.read_bytes() != secrets.receipt_key_file.read_bytes()


def test_secrets_are_made_once(secrets: Secrets, tmp_path: Path) -> None:
    again = load_or_create(tmp_path / "secrets")

    assert again == secrets
    assert secrets.database_passwords["runtime_app"] not in repr(again)
