"""A secret in a log fails the test that it was logged in, whatever kind it is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_localstack.installation.secrets import load_or_create
from oa_platform.auth.keys import dump_key, generate_key
from oa_platform.auth.tokens import sign_token
from oa_platform.system.ids import new_id
from oa_testing.suite.leaks import check_logs, leaks_in, logged
from openagents.control.v1 import claims_pb2
from services.control.api_keys.domain import API_KEY_BYTES, api_key
from services.control.sessions.domain import refresh_token

pytest_plugins = ["pytester"]


def secrets(folder: Path) -> dict[str, str]:
    """One of each kind, as programs make them."""
    claims = claims_pb2.SyncTokenClaims(iss="i", sub="s", aud="a", iat=1, nbf=1, exp=2, jti="j")
    made = load_or_create(folder)
    return {
        "a token": sign_token(claims, generate_key()),
        "a refresh token": refresh_token(b"key", new_id("ses"), 7),
        "an API key": api_key(bytes(API_KEY_BYTES)),
        "a private key": dump_key(generate_key()).splitlines()[0],
        "a secret of a local stack": made.service_tokens["control"],
        "a password in a URL": "postgresql://control_app:hunter2@db.example/openagents",
    }


def test_every_kind_of_secret_is_found_and_not_shown(tmp_path: Path) -> None:
    for kind, secret in secrets(tmp_path).items():
        line = f'{{"event": "signed_in", "what": "{secret}"}}'
        [found] = leaks_in([line])
        assert found.startswith(f"{kind} in: ")
        assert secret not in found


def test_what_names_a_secret_without_showing_it_is_none() -> None:
    lines = [
        "token ses_01JD8V0000000000000000000A",
        "oak_…",
        "postgresql://control_app@db/x",
        "postgresql://a:***@db/x",
    ]
    assert list(leaks_in(lines)) == []


def test_logs_of_processes_are_looked_through(tmp_path: Path) -> None:
    (tmp_path / "control.log").write_text('{"event": "fine"}\n')
    check_logs(tmp_path)
    (tmp_path / "runtime.log").write_text(f'{{"event": "bad", "key": "{secrets(tmp_path / "s")["an API key"]}"}}\n')
    with pytest.raises(AssertionError, match=r"runtime\.log: an API key in"):
        check_logs(tmp_path)


@pytest.mark.parametrize("line", ["[info     ] x", "[critical ] x", '{"level": "info", "event": "x"}'])
def test_lines_of_our_logs_are_known(line: str) -> None:
    assert logged(f"said\n{line}\n[not a log]") == [line]


def test_a_test_that_logs_a_secret_fails(
    pytester: pytest.Pytester, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = secrets(tmp_path)["an API key"]
    pytester.makepyfile(f"def test_it(): print('[info     ] made', '{key}')\ndef test_fine(): print('{key}')")
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.plugin", "-p", "no:cacheprovider")
    capsys.readouterr()  # or the same would be found of this test
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_it*", "secrets were logged:", "an API key in: *made …"])
