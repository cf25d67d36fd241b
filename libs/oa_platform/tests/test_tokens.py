"""A token is taken only if everything about it is right; each thing that is wrong has its own reason."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.catalogue import ClientAction
from oa_base.clock import Clock
from oa_base.identity import ISSUER, PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth import keys, tokens
from oa_platform.auth.authenticator import principal_of
from oa_platform.auth.identity import require_scope
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.tokens import TOKEN_KINDS, TokenVerifier, sign_token
from oa_platform.config.shared import CLOCK_LEEWAY_MS, ClockSettings
from oa_platform.health.clock_watch import ClockWatch
from oa_testing.clock import FakeClock, SkewedClock
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2

LEEWAY_S = CLOCK_LEEWAY_MS // 1000
KEY = keys.generate_key()
OTHER_KEY = keys.generate_key()
PrincipalClaims = claims_pb2.PrincipalClaims


def _claims(clock: FakeClock, **changes: Any) -> PrincipalClaims:
    now = int(clock.time())
    values: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "usr_1",
        "aud": "runtime",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "jti_1",
        "kind": principal_pb2.PRINCIPAL_KIND_USER,
        "org_id": "org_1",
        "scopes": ["runs.read", "runs.write"],
        "session_id": "ses_1",
        "device_id": "dev_1",
    }
    return PrincipalClaims(**{**values, **changes})


def _payload(clock: FakeClock) -> dict[str, Any]:
    now = int(clock.time())
    return {
        "iss": ISSUER, "sub": "usr_1", "aud": "runtime", "iat": now, "nbf": now, "exp": now + 60, "jti": "j",
        "kind": "PRINCIPAL_KIND_USER", "org_id": "org_1",
    }  # fmt: skip


def _encode(payload: dict[str, Any], key: Any = KEY.private_key, algorithm: str = "EdDSA", **headers: Any) -> str:
    typ = TOKEN_KINDS[PrincipalClaims].typ
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": KEY.kid, "typ": typ, **headers})


async def _verify(token: str, clock: FakeClock, audience: str = "runtime") -> PrincipalClaims:
    verifier = TokenVerifier(StaticKeys([KEY.public_key]), clock)
    return await verifier.verify(token, PrincipalClaims, audience=audience)


async def _reason(token: str, clock: FakeClock, audience: str = "runtime") -> str:
    with pytest.raises(Refusal) as caught:
        await _verify(token, clock, audience)
    assert token not in str(caught.value)
    return caught.value.reason


async def test_the_claims_come_back(clock: FakeClock) -> None:
    claims = _claims(clock)
    assert await _verify(sign_token(claims, KEY), clock) == claims


async def test_claims_make_a_principal(clock: FakeClock) -> None:
    principal = principal_of(await _verify(sign_token(_claims(clock), KEY), clock))
    assert (principal.kind, principal.subject, principal.org_id) == (PrincipalKind.USER, "usr_1", "org_1")
    assert principal.scopes == {"runs.read", "runs.write"}
    assert (principal.session_id, principal.device_id) == ("ses_1", "dev_1")
    with pytest.raises(Refusal) as caught:
        require_scope(principal, "orgs.write")
    assert caught.value.reason == "missing_scope"


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"])
def test_incomplete_claims_are_not_signed(clock: FakeClock, claim: str) -> None:
    claims = _claims(clock)
    claims.ClearField(claim)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=claim):
        sign_token(claims, KEY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p.update(iss="somebody"), "invalid_token"),
        (lambda p: p.update(aud="projector"), "invalid_token"),
        (lambda p: p.update(aud=["runtime"]), "invalid_token"),
        (lambda p: p.pop("jti"), "missing_jti"),
        (lambda p: p.update(jti=""), "missing_jti"),
        (lambda p: p.pop("iat"), "missing_iat"),
        (lambda p: p.update(iat="now"), "invalid_token"),
        (lambda p: p.update(iat=True), "invalid_token"),
        (lambda p: p.pop("nbf"), "invalid_token"),
        (lambda p: p.pop("exp"), "invalid_token"),
        (lambda p: p.update(exp=p["exp"] + 0.5), "invalid_token"),
        (lambda p: p.pop("sub"), "invalid_token"),
        (lambda p: p.update(nbf=p["iat"] + LEEWAY_S + 1), "clock_skew"),
        (lambda p: p.update(iat=p["iat"] + LEEWAY_S + 1, nbf=p["nbf"]), "clock_skew"),
        (lambda p: p.update(exp=p["iat"] - LEEWAY_S), "token_expired"),
        (lambda p: p.update(iat=p["iat"] - 60 - LEEWAY_S - 1), "token_too_old"),
        (lambda p: p.update(scopes="runs.read"), "invalid_token"),
        (lambda p: p.update(org_id=7), "invalid_token"),
    ],
)
async def test_wrong_claims_are_refused_by_their_reason(
    clock: FakeClock, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    payload = _payload(clock)
    await _verify(_encode(payload), clock)  # right, before the change
    change(payload)
    assert await _reason(_encode(payload), clock) == reason


async def test_the_clocks_may_differ_by_the_leeway(clock: FakeClock) -> None:
    payload = _payload(clock)
    payload.update(nbf=payload["iat"] + LEEWAY_S, exp=payload["iat"] - LEEWAY_S + 1)
    await _verify(_encode(payload), clock)


def _watched(clock: Clock, **settings: int) -> tuple[TokenVerifier, ClockWatch]:
    limits = ClockSettings(**{"leeway_ms": CLOCK_LEEWAY_MS, "max_skew_ms": 2_000, **settings})
    watch = ClockWatch("runtime", clock, limits)
    return TokenVerifier(StaticKeys([KEY.public_key]), clock, watch), watch


async def _skew_found(verifier: TokenVerifier, token: str) -> tuple[str, str, str]:
    with pytest.raises(Refusal) as caught:
        await verifier.verify(token, PrincipalClaims, audience="runtime")
    assert (caught.value.reason, caught.value.info.action) == ("clock_skew", ClientAction.RETRY)
    metadata = caught.value.metadata
    assert metadata["ahead_ms"].lstrip("-") in caught.value.message, "a person is told too"
    return metadata["clock"], metadata["compared_with"], metadata["ahead_ms"]


async def test_a_token_of_the_future_names_the_clock_and_by_how_much(clock: FakeClock) -> None:
    token = sign_token(_claims(clock), KEY)
    verifier, watch = _watched(SkewedClock(lambda: -30_000, clock))
    assert await _skew_found(verifier, token) == ("runtime", "control", "-30000")
    # What was measured is more exact than the whole seconds of the token.
    watch.told("control", watch.asking(), clock.now_ms() + 700)
    assert await _skew_found(verifier, token) == ("runtime", "control", "-30700")


async def test_a_token_that_has_expired_only_because_our_clock_is_ahead_is_not_called_so(clock: FakeClock) -> None:
    token = sign_token(_claims(clock), KEY)
    verifier, watch = _watched(SkewedClock(lambda: 70_000, clock))
    with pytest.raises(Refusal, match="token_expired"):  # as long as nobody knows better
        await verifier.verify(token, PrincipalClaims, audience="runtime")
    watch.told("control", watch.asking(), clock.now_ms())
    assert await _skew_found(verifier, token) == ("runtime", "control", "70000")
    await clock.advance(61)
    with pytest.raises(Refusal, match="token_expired"):  # by control's clock too
        await verifier.verify(token, PrincipalClaims, audience="runtime")


async def test_the_leeway_is_a_setting(clock: FakeClock) -> None:
    token = sign_token(_claims(clock), KEY)
    wide, _ = _watched(SkewedClock(lambda: -30_000, clock), leeway_ms=30_000)
    await wide.verify(token, PrincipalClaims, audience="runtime")
    narrow, _ = _watched(SkewedClock(lambda: -30_000, clock), leeway_ms=29_999)
    await _skew_found(narrow, token)


async def test_a_token_expires(clock: FakeClock) -> None:
    token = sign_token(_claims(clock), KEY)
    await clock.advance(60 + LEEWAY_S - 1)
    await _verify(token, clock)
    await clock.advance(1)
    assert await _reason(token, clock) == "token_expired"


async def test_unknown_claims_are_ignored(clock: FakeClock) -> None:
    assert (await _verify(_encode({**_payload(clock), "new_claim": 1}), clock)).sub == "usr_1"


async def test_a_kind_of_principal_that_is_not_known_makes_no_principal(clock: FakeClock) -> None:
    claims = await _verify(_encode({**_payload(clock), "kind": "PRINCIPAL_KIND_EMPEROR"}), clock)
    with pytest.raises(Refusal) as caught:
        principal_of(claims)
    assert caught.value.reason == "invalid_token"


async def test_another_audience_is_refused(clock: FakeClock) -> None:
    assert await _reason(sign_token(_claims(clock), KEY), clock, audience="projector") == "invalid_token"


async def test_another_kind_of_token_is_refused(clock: FakeClock) -> None:
    now = int(clock.time())
    worker = claims_pb2.WorkerTokenClaims(
        iss=ISSUER, sub="sva_1", aud="runtime", iat=now, nbf=now, exp=now + 60, jti="j",
        kind=principal_pb2.PRINCIPAL_KIND_WORKER, org_id="org_1",
    )  # fmt: skip
    assert await _reason(sign_token(worker, KEY), clock) == "invalid_token"


async def test_a_foreign_key_is_refused(clock: FakeClock) -> None:
    assert await _reason(sign_token(_claims(clock), OTHER_KEY), clock) == "invalid_token"
    # … also when it claims to be ours
    assert await _reason(_encode(_payload(clock), OTHER_KEY.private_key), clock) == "invalid_token"


async def test_other_algorithms_are_refused(clock: FakeClock) -> None:
    public = KEY.public_key.public_bytes_raw()
    assert await _reason(_encode(_payload(clock), public, "HS256"), clock) == "invalid_token"
    assert await _reason(_encode(_payload(clock), None, "none"), clock) == "invalid_token"


@pytest.mark.parametrize("headers", [{"typ": "JWT"}, {"typ": None}, {"kid": ""}, {"kid": "other"}], ids=str)
async def test_wrong_headers_are_refused(clock: FakeClock, headers: dict[str, Any]) -> None:
    assert await _reason(_encode(_payload(clock), **headers), clock) == "invalid_token"


async def test_every_changed_character_is_noticed(clock: FakeClock) -> None:
    token = sign_token(_claims(clock), KEY)
    head, body, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed["org_id"] = "org_2"
    forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    assert await _reason(f"{head}.{forged}.{signature}", clock) == "invalid_token"
    assert await _reason(f"{head}.{body}.{signature[:-8]}AAAAAAAA", clock) == "invalid_token"


async def test_a_huge_token_is_not_even_read(clock: FakeClock) -> None:
    assert await _reason("a" * (tokens.MAX_TOKEN_CHARS + 1), clock) == "invalid_token"


async def test_a_header_of_endless_nesting_is_no_token(clock: FakeClock) -> None:
    head = base64.urlsafe_b64encode(b"[" * 6000).rstrip(b"=").decode()
    assert len(head) < tokens.MAX_TOKEN_CHARS
    assert await _reason(f"{head}.e30.AA", clock) == "invalid_token"


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[\w-]{0,20}\.[\w-]{0,20}\.[\w-]{0,20}", fullmatch=True)))
def test_no_text_breaks_the_verifier(text: str) -> None:
    async def verify() -> None:
        with pytest.raises(Refusal) as caught:
            await _verify(text, FakeClock())
        assert caught.value.reason == "invalid_token"

    asyncio.run(verify())


@pytest.mark.parametrize(
    ("claims_type", "kind"),
    [
        (claims_pb2.PrincipalClaims, principal_pb2.PRINCIPAL_KIND_WORKER),
        (claims_pb2.PrincipalClaims, principal_pb2.PRINCIPAL_KIND_UNSPECIFIED),
        (claims_pb2.WorkerTokenClaims, principal_pb2.PRINCIPAL_KIND_USER),
        (claims_pb2.AccessTokenClaims, principal_pb2.PRINCIPAL_KIND_WORKER),
    ],
)
def test_a_token_speaks_only_of_its_kind_of_principal(claims_type: Any, kind: int) -> None:
    with pytest.raises(Refusal) as caught:
        principal_of(claims_type(sub="x", org_id="org_1", kind=kind))
    assert caught.value.reason == "invalid_token"


def test_a_principal_has_an_org() -> None:
    with pytest.raises(Refusal):
        principal_of(PrincipalClaims(sub="x", kind=principal_pb2.PRINCIPAL_KIND_USER))


class _Keys:
    """A source whose keys change."""

    def __init__(self) -> None:
        self.keys = {KEY.kid: KEY.public_key}

    async def public_key(self, kid: str) -> Any:
        return self.keys.get(kid)


async def test_what_is_remembered_of_a_token_is_no_more_than_its_signature(clock: FakeClock) -> None:
    source = _Keys()
    verifier = TokenVerifier(source, clock)
    claims = _claims(clock)
    token = sign_token(claims, KEY)
    first = await verifier.verify(token, PrincipalClaims, audience="runtime")
    first.scopes.append("everything")
    assert await verifier.verify(token, PrincipalClaims, audience="runtime") == claims
    with pytest.raises(Refusal, match="not for projector"):
        await verifier.verify(token, PrincipalClaims, audience="projector")
    with pytest.raises(Refusal, match="another kind"):
        await verifier.verify(token, claims_pb2.AccessTokenClaims, audience="runtime")
    source.keys = {KEY.kid: OTHER_KEY.public_key}
    with pytest.raises(Refusal, match="wrong signature"):
        await verifier.verify(token, PrincipalClaims, audience="runtime")
    source.keys = {}
    with pytest.raises(Refusal, match="not one of control"):
        await verifier.verify(token, PrincipalClaims, audience="runtime")
    source.keys = {KEY.kid: KEY.public_key}
    await clock.advance(60 + LEEWAY_S)
    with pytest.raises(Refusal, match="token_expired"):
        await verifier.verify(token, PrincipalClaims, audience="runtime")


@pytest.mark.parametrize("max_remembered", [3, 0])
async def test_a_verifier_remembers_a_bounded_number_of_tokens(clock: FakeClock, max_remembered: int) -> None:
    verifier = TokenVerifier(StaticKeys([KEY.public_key]), clock, max_remembered=max_remembered)
    for number in range(5):
        claims = _claims(clock, jti=f"jti_{number}")
        assert await verifier.verify(sign_token(claims, KEY), PrincipalClaims, audience="runtime") == claims
    assert len(verifier._checked) == max_remembered
