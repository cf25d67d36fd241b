"""Settings come from the environment with their defaults, and every wrong one is named without showing a secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from oa_base.refusal import Refusal
from oa_platform.config.loading import describe, group, load, peer_port, setting
from oa_platform.config.parsers import Address, Secret, Target, integer, path, secret_text, target, text
from oa_platform.config.shared import DatabaseSettings, JwksSettings, ServiceSettings, token_hash
from oa_testing.postgres import DEVELOPMENT


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group."""

    limit: int = setting("OA_LIMIT", integer(1, 10), 5, doc="A limit.")
    upstream: Target = setting("OA_UPSTREAM", target(), peer_port("projector_grpc"), doc="Another service.")


@dataclass(frozen=True, kw_only=True)
class Sample(ServiceSettings):
    """A service's settings."""

    service: ClassVar[str] = "runtime"
    inner: Inner = group(Inner)
    name: str = setting("OA_NAME", text(5), doc="A name.")
    key: Secret = setting("OA_KEY", secret_text(), doc="A key.")
    other: Secret = setting("OA_OTHER_KEY", secret_text(), Secret(""), doc="A key that may be missing.")
    place: Path | None = setting("OA_PLACE", path(), None, doc="A place.")


REQUIRED = {"OA_NAME": "x", "OA_KEY": "hush", "OA_SERVICE_TOKEN": "t", **DEVELOPMENT}


def _refusal(env: Mapping[str, str]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        load(Sample, env)
    assert caught.value.reason == "invalid_setting"
    return caught.value


def test_what_is_not_set_has_its_default() -> None:
    settings = load(Sample, REQUIRED)
    assert settings.inner == Inner(limit=5, upstream=Target((Address("127.0.0.1", 9082),)))
    assert (settings.name, settings.key.reveal(), settings.place) == ("x", "hush", None)
    assert settings.grpc.address == Address("127.0.0.1", 9081)
    assert settings.ops.address == Address("127.0.0.1", 9181)


def test_values_from_the_environment() -> None:
    env = {
        **REQUIRED,
        "OA_LIMIT": "10",
        "OA_UPSTREAM": "projector:1",
        "OA_PLACE": "/tmp/x",
        "OA_GRPC_ADDRESS": "[::1]:7",
    }
    settings = load(Sample, env)
    assert settings.inner == Inner(limit=10, upstream=Target((Address("projector", 1),)))
    assert settings.place == Path("/tmp/x")
    assert str(settings.grpc.address) == "[::1]:7"


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load(Sample, {**REQUIRED, "OA_LIMIT": ""}).inner.limit == 5


@pytest.mark.parametrize(
    ("env", "port"),
    [({"OA_PORT_BASE": "20000"}, 21001), ({"OA_PORT_BASE": "20000", "OA_RUNTIME_GRPC_PORT": "7"}, 7)],
    ids=["base", "the port's own"],
)
def test_ports_follow_the_formula_or_their_own_variable(env: dict[str, str], port: int) -> None:
    assert load(Sample, {**REQUIRED, **env}).grpc.address.port == port


@pytest.mark.parametrize("base", ["0", "65535", "x", "-1"])
def test_a_port_that_is_none_names_the_variable_that_leads_to_it(base: str) -> None:
    refusal = _refusal({**REQUIRED, "OA_PORT_BASE": base})
    assert refusal.field == "OA_PORT_BASE"
    assert "OA_PORT_BASE comes to" in refusal.message


def test_every_wrong_variable_is_named_with_what_is_expected() -> None:
    refusal = _refusal({"OA_LIMIT": "eleven", "OA_KEY": "hush", "OA_SERVICE_TOKEN": "t", "OA_LOG_LEVEL": "loud"})
    assert refusal.field == "OA_LOG_LEVEL"
    for part in ("OA_LIMIT is 'eleven', but it must be a whole number from 1 to 10", "OA_NAME is not set", "'loud'"):
        assert part in refusal.message


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(Refusal) as caught:
        load(DatabaseSettings, {"OA_DATABASE_URL": "mysql://me:geheim@host/db"})
    assert "OA_DATABASE_URL must be a database URL" in caught.value.message
    assert "geheim" not in str(caught.value)


def test_a_secret_shows_itself_to_nobody_who_prints_settings() -> None:
    settings = load(Sample, REQUIRED)
    assert "hush" not in f"{settings!r} {settings} {settings.key}"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    env = {"OA_NAME": "x", "OA_SERVICE_TOKEN": "t", **DEVELOPMENT, "OA_KEY_FILE": str(tmp_path / "key")}
    assert load(Sample, env).key.reveal() == "from a file"
    assert "OA_KEY_FILE names a file that can't be read" in _refusal({**env, "OA_KEY_FILE": "/nonexistent"}).message


@pytest.mark.parametrize("variable", ["OA_KEY", "OA_OTHER_KEY"], ids=["required", "optional"])
def test_a_secret_whose_file_is_empty_is_not_one_that_is_not_set(variable: str, tmp_path: Path) -> None:
    """A secret that was being replaced: with its default, an optional one would go unnoticed."""
    (tmp_path / "key").write_text("\n")
    env = {name: text for name, text in REQUIRED.items() if name != variable}
    message = _refusal({**env, f"{variable}_FILE": str(tmp_path / "key")}).message
    assert f"{variable}_FILE names a file that is empty; write the secret into it" in message


def test_a_secret_that_is_given_in_both_ways_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    message = _refusal({**REQUIRED, "OA_KEY_FILE": str(tmp_path / "key")}).message
    assert "OA_KEY and OA_KEY_FILE are both set; unset one of them" in message


def test_only_a_secret_may() -> None:
    assert (
        "OA_NAME is not set" in _refusal({"OA_KEY": "k", "OA_SERVICE_TOKEN": "t", "OA_NAME_FILE": "/etc/hosts"}).message
    )


def test_the_documentation_has_every_variable_and_no_secret() -> None:
    rows = {row.variable: row for row in describe(Sample)}
    assert rows["OA_LIMIT"].default == "5"
    assert rows["OA_NAME"].default == "required"
    assert rows["OA_PLACE"].default == "none"
    assert rows["OA_KEY"].secret
    assert rows["OA_UPSTREAM"].default == "127.0.0.1, OA_PORT_BASE + 1002"
    assert {"OA_GRPC_ADDRESS", "OA_OPS_ADDRESS", "OA_LOG_LEVEL", "OA_ACCEPTED_SERVICES"} <= rows.keys()
    assert all(row.doc.endswith(".") and row.expects for row in rows.values())


def test_control_is_found_by_the_formula() -> None:
    assert load(JwksSettings, {"OA_PORT_BASE": "18080"}).control_url == "http://127.0.0.1:18080"


def test_accepted_services_are_parsed() -> None:
    env = {**REQUIRED, "OA_ACCEPTED_SERVICES": f"control={token_hash('a')}, khala_gateway={token_hash('b')}"}
    assert load(Sample, env).identity.accepted_services == {
        token_hash("a"): "control",
        token_hash("b"): "khala_gateway",
    }


def test_a_service_has_two_tokens_at_a_time_and_no_third() -> None:
    two = [f"control={token_hash('old')}", f"control={token_hash('new')}"]
    loaded = load(Sample, {**REQUIRED, "OA_ACCEPTED_SERVICES": ",".join(two)})
    assert set(loaded.identity.accepted_services.values()) == {"control"}
    three = [*two, f"control={token_hash('another')}"]
    with pytest.raises(Refusal, match="a service has at most 2 tokens at a time"):
        load(Sample, {**REQUIRED, "OA_ACCEPTED_SERVICES": ",".join(three)})
    with pytest.raises(Refusal, match="OA_ACCEPTED_SERVICES"):
        load(Sample, {**REQUIRED, "OA_ACCEPTED_SERVICES": f"{two[0]},projector={token_hash('old')}"})


@pytest.mark.parametrize(("refresh_s", "is_refused"), [("5", False), ("4.9", True)])
def test_keys_that_are_fetched_less_often_than_said_are_refused(refresh_s: str, is_refused: bool) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Verifier(Sample):
        jwks: JwksSettings = group(JwksSettings)

    env = {**REQUIRED, "OA_JWKS_MIN_REFRESH_S": "5", "OA_JWKS_REFRESH_S": refresh_s}
    if not is_refused:
        assert load(Verifier, env).jwks.refresh_interval_s == 5
        return
    with pytest.raises(Refusal, match=r"OA_JWKS_MIN_REFRESH_S \(5\) is longer than OA_JWKS_REFRESH_S \(4.9\)"):
        load(Verifier, env)


def test_a_token_in_the_place_of_its_hash_is_not_shown() -> None:
    refusal = _refusal({**REQUIRED, "OA_ACCEPTED_SERVICES": "control=the-token-itself"})
    assert refusal.field == "OA_ACCEPTED_SERVICES"
    assert "must be a list like control=<sha256 in hex>" in refusal.message
    assert "the-token-itself" not in str(refusal)
