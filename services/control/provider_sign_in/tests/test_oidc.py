"""What a real OpenID provider answers, and what somebody in its place could."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from jwkest.jwk import SYMKey

from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from services.control.provider_sign_in.domain import Asked, Identity
from services.control.provider_sign_in.door.oidc import OidcClient, OidcProvider
from services.control.provider_sign_in.limits import MAX_ANSWER_BYTES
from services.control.provider_sign_in.tests.openid import (
    CLIENT_ID,
    REDIRECT,
    SECRET,
    OpenId,
    claims_of,
    new_key,
    signed,
)

ASKED = Asked(REDIRECT, state="s" * 43, nonce="n" * 43, verifier="v" * 43)
Tamper = Callable[[OpenId, str], Any]


async def code_of(openid: OpenId, oidc: OidcProvider, asked: Asked = ASKED) -> str:
    """The code that a browser brings back."""
    brought = openid.page(await oidc.authorization_url(asked))
    assert brought["state"] == asked.state
    return brought["code"]


async def refusal_of(oidc: OidcProvider, code: str, asked: Asked = ASKED) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await oidc.identity(asked, code)
    return refused.value


@pytest.mark.parametrize("email_in", ["id_token", "userinfo"])
async def test_a_provider_vouches_for_a_person(openid: OpenId, oidc: OidcProvider, email_in: str) -> None:
    openid.email_in = email_in
    identity = await oidc.identity(ASKED, await code_of(openid, oidc))
    subject = identity.subject
    assert identity == Identity(openid.issuer, subject, "Ada@Example.org", email_verified=True)
    assert (await oidc.identity(ASKED, await code_of(openid, oidc))).subject == subject
    assert openid.asked.count("/.well-known/openid-configuration") == 1, "it is read once"
    assert openid.asked.count("/userinfo") == (2 if email_in == "userinfo" else 0)


async def test_user_info_of_another_subject_is_refused(openid: OpenId, oidc: OidcProvider) -> None:
    openid.email_in = "userinfo"
    code = await code_of(openid, oidc)
    openid.answers["/userinfo"] = (200, '{"sub": "eve", "email": "ada@example.org", "email_verified": true}')
    assert (await refusal_of(oidc, code)).reason == "provider_refused"


@pytest.mark.parametrize("says", [None, False, "true", 1])
async def test_only_a_plain_yes_verifies_an_address(openid: OpenId, oidc: OidcProvider, says: Any) -> None:
    openid.tamper = lambda id_token: _with(email_verified=says)(openid, id_token)
    assert not (await oidc.identity(ASKED, await code_of(openid, oidc))).email_verified


async def test_a_code_is_good_once_and_only_with_its_verifier_and_redirect_url(
    openid: OpenId, oidc: OidcProvider
) -> None:
    code = await code_of(openid, oidc)
    await oidc.identity(ASKED, code)
    assert (await refusal_of(oidc, code)).reason == "provider_refused"
    for other in (replace(ASKED, verifier="w" * 43), replace(ASKED, redirect_uri=REDIRECT.replace("4711", "4712"))):
        assert (await refusal_of(oidc, await code_of(openid, oidc), other)).reason == "provider_refused"
    assert (await refusal_of(oidc, "guessed")).reason == "provider_refused"


def _with(**changes: Any) -> Tamper:
    def tamper(openid: OpenId, id_token: str) -> str:
        claims = claims_of(id_token) | changes
        return signed({name: value for name, value in claims.items() if value is not None}, openid.provider.signing_key)

    return tamper


def _from_now(claim: str, seconds: int) -> Tamper:
    """Counted when it is used: the table is made when tests are collected, which may be long before."""

    def tamper(openid: OpenId, id_token: str) -> str:
        made: str = _with(**{claim: int(time.time()) + seconds})(openid, id_token)
        return made

    return tamper


def _unsigned(_: OpenId, id_token: str) -> str:
    return signed(claims_of(id_token), None, alg="none")


def _with_our_secret(_: OpenId, id_token: str) -> str:
    return signed(claims_of(id_token), SYMKey(key=SECRET, kid="one"), alg="HS256")


def _with_another_key(_: OpenId, id_token: str) -> str:
    return signed(claims_of(id_token), new_key("one"))


def _with_an_unknown_key(_: OpenId, id_token: str) -> str:
    return signed(claims_of(id_token), new_key("other"))


TAMPERED: dict[str, Tamper] = {
    "another issuer": _with(iss="https://evil.example"),
    "another audience": _with(aud="somebody-else"),
    "another audience, though named for us": _with(aud="somebody-else", azp=CLIENT_ID),
    "several audiences and nobody named": _with(aud=[CLIENT_ID, "somebody-else"]),
    "for somebody else": _with(azp="somebody-else"),
    "another nonce": _with(nonce="m" * 43),
    "no nonce": _with(nonce=None),
    "expired": _from_now("exp", -3600),
    "from the future": _from_now("iat", 3600),
    "no subject": _with(sub=None),
    "a subject that is no text": _with(sub=7),
    "not of this access token": _with(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "unsigned": _unsigned,
    "signed with our secret": _with_our_secret,
    "signed with another key": _with_another_key,
    "signed with an unknown key": _with_an_unknown_key,
    "no token": lambda _openid, _token: "hunter2",
    "a number": lambda _openid, _token: 7,
    "nothing": lambda _openid, _token: None,
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_what_vouches_for_nobody_is_refused_and_never_repeated(
    openid: OpenId, oidc: OidcProvider, name: str
) -> None:
    openid.tamper = lambda id_token: TAMPERED[name](openid, id_token)
    refusal = await refusal_of(oidc, await code_of(openid, oidc))
    assert refusal.reason == "provider_refused"
    assert "hunter2" not in refusal.message
    openid.tamper = None
    assert (await oidc.identity(ASKED, await code_of(openid, oidc))).email_verified, "the next one is fine"


async def test_a_new_key_of_the_provider_is_found_at_once(openid: OpenId, oidc: OidcProvider) -> None:
    await oidc.identity(ASKED, await code_of(openid, oidc))
    openid.provider.signing_key = new_key("two")
    assert (await oidc.identity(ASKED, await code_of(openid, oidc))).email_verified
    assert openid.asked.count("/jwks") == 2


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/token", 500, "{}"),
        ("/token", 200, "<html>hunter2</html>"),
        ("/token", 200, "[]"),
        ("/token", 200, "[" * 100_000),
        ("/token", 200, '{"access_token": "a", "expires_in": 1e400}'),
        ("/token", 400, '{"error": []}'),
        ("/token", 401, '{"error": "invalid_client"}'),
        ("/jwks", 404, "{}"),
        ("/jwks", 200, '{"keys": 7}'),
        ("/.well-known/openid-configuration", 503, "{}"),
        ("/.well-known/openid-configuration", 200, "[]"),
        ("/.well-known/openid-configuration", 200, '{"issuer": "https://evil.example"}'),
        ("/userinfo", 200, "7"),
    ],
)
async def test_a_provider_that_does_not_work_is_unavailable(
    openid: OpenId, oidc: OidcProvider, path: str, status: int, body: str
) -> None:
    # The code comes by another client, as by another replica: this one has read nothing yet.
    code = await code_of(openid, OidcProvider(oidc._client, SystemClock()))
    openid.answers[path] = (status, body)
    openid.email_in = "userinfo"
    refusal = await refusal_of(oidc, code)
    assert refusal.reason == "provider_unavailable"
    assert "hunter2" not in refusal.message


BAD_METADATA = [("issuer", "https://evil.example"), ("issuer", None)] + [
    (endpoint, url)
    for endpoint in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
    for url in ("", "file:///etc/passwd", "hunter2", 7)
]


@pytest.mark.parametrize(("name", "value"), BAD_METADATA)
async def test_metadata_are_of_this_issuer_and_lead_to_urls_only(
    openid: OpenId, oidc: OidcProvider, name: str, value: Any
) -> None:
    about = openid.provider.provider_configuration.to_dict() | {name: value}
    openid.answers["/.well-known/openid-configuration"] = (200, json.dumps(about))
    with pytest.raises(Refusal, match="provider_unavailable"):
        await oidc.authorization_url(ASKED)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks"])
async def test_an_answer_has_a_limit(openid: OpenId, oidc: OidcProvider, path: str) -> None:
    good = openid.provider.provider_configuration.to_json() if path != "/jwks" else json.dumps(openid.provider.jwks)
    code = await code_of(openid, OidcProvider(oidc._client, SystemClock()))
    openid.answers[path] = (200, good.ljust(MAX_ANSWER_BYTES + 1))
    assert (await refusal_of(oidc, code)).reason == "provider_unavailable"
    openid.answers[path] = (200, good.ljust(MAX_ANSWER_BYTES))
    assert (await oidc.identity(ASKED, code)).email_verified


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
async def test_a_packed_answer_is_not_unpacked(openid: OpenId, oidc: OidcProvider, path: str) -> None:
    code = await code_of(openid, OidcProvider(oidc._client, SystemClock()))
    bomb = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    openid.answers[path] = (200, bomb.compress(b" " * (64 << 20)) + bomb.flush())
    with structlog.testing.capture_logs() as logs:
        assert (await refusal_of(oidc, code)).reason == "provider_unavailable"
    assert logs[0]["error"] == "DecodingError"


async def test_a_provider_that_is_slow_or_away_is_unavailable(openid: OpenId, oidc: OidcProvider) -> None:
    openid.held = threading.Event()
    with structlog.testing.capture_logs() as logs:
        with pytest.raises(Refusal, match="provider_unavailable"):
            await OidcProvider(replace(oidc._client, timeout_s=0.2), SystemClock()).authorization_url(ASKED)
        assert logs[0]["error"] in {"TimeoutError", "ReadTimeout"}
    away = OidcClient("http://127.0.0.1:9", "x", CLIENT_ID, SECRET, "client_secret_basic", timeout_s=30.0)
    with pytest.raises(Refusal, match="provider_unavailable"):
        await OidcProvider(away, SystemClock()).authorization_url(ASKED)
    assert SECRET not in repr(away)
