"""Issued tokens: what their claims say, and that nothing else is said about them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from oa_base.identity import PrincipalKind, TokenKind
from oa_base.refusal import Refusal
from oa_khala.topics import RUN_EVENTS, Topic, parse_topic, user_runs
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import TOKEN_KINDS, TokenVerifier, issued_s
from oa_platform.system.ids import new_id
from oa_testing.clock import FakeClock
from openagents.control.v1 import claims_pb2
from services.control.policy.domain import Scope, StandingPrincipal
from services.control.tokens import app
from services.control.tokens.app import LEFT_FOR_A_CALL, TokenIssuer
from services.control.tokens.domain import API_KEY_EDGE_TTL, PRINCIPAL_TTL, WORKER_TTL
from services.control.tokens.door import CurrentSigner, JwtSigner, JwtVerifier

NOW = datetime(2026, 1, 1, 12, 0, 0, 999_999, tzinfo=UTC)
BOTH = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})
PERSON = StandingPrincipal(
    PrincipalKind.USER, "usr_1", "org_1", BOTH, "ses_1", "dev_1", standing=frozenset({Scope.RUNS_READ})
)


def claims_in(token: str) -> dict[str, object]:
    """The claims of a token, unverified."""
    body = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def test_every_kind_of_token_has_its_claims_in_the_contract() -> None:
    assert set(TOKEN_KINDS.values()) == set(TokenKind)
    assert {message.__name__ for message in TOKEN_KINDS} == set(claims_pb2.DESCRIPTOR.message_types_by_name)


def test_whoever_gets_a_token_is_told_when_it_expires_as_the_token_says() -> None:
    issuer = TokenIssuer(JwtSigner(generate_key()))
    end = NOW + timedelta(seconds=77)
    for issued, expires_at in (
        (issuer.for_session(PERSON, "ses_1.0", NOW), NOW + timedelta(hours=1)),
        (issuer.for_api_key(PERSON, NOW, None), NOW + API_KEY_EDGE_TTL),
        (issuer.for_api_key(PERSON, NOW, end), end),
        (issuer.for_worker(PERSON, NOW, None), NOW + WORKER_TTL),
        (issuer.for_worker(PERSON, NOW, end), end),
        (issuer.for_upstream(PERSON, "runtime", NOW), NOW + PRINCIPAL_TTL),
        (issuer.for_topics(PERSON, [Topic(RUN_EVENTS, "run_1")], ["runs.read"], "cli", NOW, end), end),
    ):
        assert issued.expires_at == expires_at.replace(microsecond=0)
        assert claims_in(issued.token)["exp"] == issued.expires_at.timestamp()


def test_calls_that_follow_on_each_other_have_one_token_and_another_standing_has_another() -> None:
    issuer = TokenIssuer(JwtSigner(generate_key()))
    first = issuer.for_upstream(PERSON, "runtime", NOW)
    last_use = first.expires_at - LEFT_FOR_A_CALL
    assert issuer.for_upstream(PERSON, "runtime", last_use) == first
    assert issuer.for_upstream(PERSON, "projector", NOW) != first
    less = issuer.for_upstream(replace(PERSON, standing=frozenset()), "runtime", NOW)
    assert "scopes" not in claims_in(less.token)
    for now in (last_use + timedelta(seconds=1), NOW - timedelta(seconds=1)):
        assert issuer.for_upstream(PERSON, "runtime", now).expires_at == (now + PRINCIPAL_TTL).replace(microsecond=0)


def test_what_a_key_signed_is_not_used_again_once_another_one_signs() -> None:
    keys = [generate_key()]
    issuer = TokenIssuer(CurrentSigner(lambda: keys[-1]))
    before = issuer.for_upstream(PERSON, "runtime", NOW)
    assert issuer.for_upstream(PERSON, "runtime", NOW) == before
    keys.append(generate_key())
    after = issuer.for_upstream(PERSON, "runtime", NOW)
    assert after != before
    issuer.forget_upstream(PERSON, "runtime")
    assert issuer.for_upstream(PERSON, "runtime", NOW) != after


def test_the_token_that_was_used_longest_ago_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_UPSTREAM_TOKENS", 2)
    issuer = TokenIssuer(JwtSigner(generate_key()))
    one, two = (issuer.for_upstream(PERSON, audience, NOW) for audience in ("runtime", "projector"))
    assert issuer.for_upstream(PERSON, "runtime", NOW) == one
    issuer.for_upstream(PERSON, "third", NOW)
    assert issuer.for_upstream(PERSON, "runtime", NOW) == one
    assert issuer.for_upstream(PERSON, "projector", NOW) != two


def test_a_service_is_called_with_what_the_caller_may_do_now_and_no_more() -> None:
    issuer = TokenIssuer(JwtSigner(generate_key()))
    assert claims_in(issuer.for_session(PERSON, "ses_1.0", NOW).token)["scopes"] == ["runs.read", "runs.write"]
    assert claims_in(issuer.for_upstream(PERSON, "runtime", NOW).token)["scopes"] == ["runs.read"]


@pytest.mark.parametrize("stated", [{}, {"iat_ms": 1}, {"iat_ms": 999}], ids=["on the second", "1 ms", "999 ms"])
def test_every_token_says_the_millisecond_at_which_it_was_issued(stated: dict[str, int]) -> None:
    now = NOW.replace(microsecond=stated.get("iat_ms", 0) * 1000)
    issuer = TokenIssuer(JwtSigner(generate_key()))
    issued = (
        issuer.for_session(PERSON, "ses_1.0", now),
        issuer.for_api_key(PERSON, now, None),
        issuer.for_worker(PERSON, now, None),
        issuer.for_upstream(PERSON, "runtime", now),
        issuer.for_topics(PERSON, [parse_topic(user_runs(new_id("usr")))], [], "cli", now, now + timedelta(minutes=5)),
    )
    for (message, kind), token in zip(TOKEN_KINDS.items(), (issued[0], issued[3], issued[2], issued[4]), strict=True):
        claims = {name: value for name, value in claims_in(token.token).items() if name in ("iat", "iat_ms")}
        assert claims == {"iat": int(now.timestamp())} | stated, kind
        assert issued_s(message(**claims)) == pytest.approx(now.timestamp(), abs=1e-6)  # type: ignore[arg-type]


async def test_what_a_token_says_is_read_once_and_whether_it_holds_is_asked_every_time() -> None:
    key, clock = generate_key(), FakeClock(NOW)
    issuer, verifier = TokenIssuer(JwtSigner(key)), JwtVerifier(TokenVerifier(StaticKeys([key.public_key]), clock))
    other = replace(PERSON, org_id="org_2")
    one, two = (issuer.for_session(person, "ses_1.0", NOW).token for person in (PERSON, other))
    for _ in range(2):
        # Standing is not in a token.
        assert (await verifier.verify(one)).principal == replace(PERSON, standing=frozenset())
        assert (await verifier.verify(two)).principal == replace(other, standing=frozenset())
    await clock.advance(timedelta(hours=2).total_seconds())
    with pytest.raises(Refusal, match="expired"):
        await verifier.verify(one)
