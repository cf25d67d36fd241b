"""Tokens that are wrong in every way that is known, at every port that takes tokens.

Forgeries are made with the installation's real key where a thief could not: what is tested is what else is looked at.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from websockets.exceptions import ConnectionClosed

from oa_base.identity import TokenKind
from oa_base.refusal import Refusal
from oa_khala.frames import Form
from oa_localstack.installation.secrets import load_or_create
from oa_platform.auth.authenticator import AUTHORIZATION_KEY, PRINCIPAL_KEY, Need
from oa_platform.auth.keys import SigningKey, generate_key, load_key
from oa_platform.system.ids import new_id
from oa_testing.waiting import PATIENCE_S
from tests.fuzz.doors import Person
from tests.fuzz.examples import EXAMPLES
from tests.fuzz.khala import PING, connected
from tests.fuzz.methods import Target, all_targets
from tests.fuzz.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")
_HOUR_S = 3600
_SESSIONS = "openagents.control.v1.SessionService"
_ACCOUNTS = "openagents.control.v1.ServiceAccountService"
_BLOCK = "BlockService/BlockSubject"
_UNAUTHENTICATED = frozenset({"invalid_token", "token_expired", "token_too_old", "token_revoked", "clock_skew"})
"""What the bearer of a wrong token hears, and nothing else."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Token:
    """A good token, taken apart. `key` is the installation's."""

    text: str
    header: Json
    payload: Json
    key: SigningKey

    def forged(self, header: Mapping[str, Any] | None = None, key: SigningKey | None = None, **claims: Any) -> str:
        """The same with other members (None leaves one out), signed as it should be, with the key or another one."""
        text = _parts({**self.header, **(header or {})}, {**self.payload, **claims})
        return f"{text}.{_encoded((key or self.key).private_key.sign(text.encode()))}"


def _parts(header: Mapping[str, Any], payload: Mapping[str, Any]) -> str:
    kept = ({name: value for name, value in part.items() if value is not None} for part in (header, payload))
    return ".".join(_encoded(json.dumps(part).encode()) for part in kept)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(part: str) -> Json:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _with_public_key_as_secret(token: Token, secret: bytes) -> str:
    text = _parts({**token.header, "alg": "HS256"}, token.payload)
    return f"{text}.{_encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def _public(token: Token, form: str) -> bytes:
    key = token.key.public_key
    if form == "raw":
        return key.public_bytes_raw()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _foreign(**header: Any) -> Callable[[Token], str]:
    """Signed by somebody else's key."""

    def make(token: Token) -> str:
        key = generate_key()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _encoded(key.public_key.public_bytes_raw()), "kid": key.kid}
        named = {"own kid": key.kid, "jwk": jwk}
        return token.forged({name: named.get(str(value), value) for name, value in header.items()}, key)

    return make


def _aged(issued_s: int, expires_s: int, begins_s: int | None = None) -> Callable[[Token], str]:
    """Times from now on, in seconds."""

    def make(token: Token) -> str:
        now = int(time.time())
        begins = issued_s if begins_s is None else begins_s
        return token.forged(iat=now + issued_s, nbf=now + begins, exp=now + expires_s)

    return make


TRICKS: Mapping[str, Callable[[Token], str]] = {
    "alg none": lambda token: _parts({**token.header, "alg": "none"}, token.payload) + ".",
    "alg none, with its signature": lambda token: (
        f"{_parts({**token.header, 'alg': 'none'}, token.payload)}.{token.text.rpartition('.')[2]}"
    ),
    "alg None": lambda token: _parts({**token.header, "alg": "None"}, token.payload) + ".",
    "no alg": lambda token: token.forged({"alg": None}),
    "HS256 with the public key": lambda token: _with_public_key_as_secret(token, _public(token, "raw")),
    "HS256 with the public key's PEM": lambda token: _with_public_key_as_secret(token, _public(token, "pem")),
    "another alg": lambda token: token.forged({"alg": "ES256"}),
    "our kid, another key": _foreign(),
    "another kid and key": _foreign(kid="own kid"),
    "its own key in jwk": _foreign(kid="own kid", jwk="jwk"),
    "a jku": _foreign(kid="own kid", jku="http://127.0.0.1:9/keys.json"),
    "an x5u": _foreign(kid="own kid", x5u="http://127.0.0.1:9/chain.pem"),
    "no kid": lambda token: token.forged({"kid": None}),
    "an empty kid": lambda token: token.forged({"kid": ""}),
    "a kid that is a path": _foreign(kid="../../../../dev/null"),
    "a kid that is SQL": _foreign(kid="x' UNION SELECT 'x"),
    "a kid that is a list": lambda token: token.forged({"kid": [token.key.kid]}),
    "crit": lambda token: token.forged({"crit": ["exp"]}),
    "no typ": lambda token: token.forged({"typ": None}),
    "typ JWT": lambda token: token.forged({"typ": "JWT"}),
    "expired": _aged(-2 * _HOUR_S, -_HOUR_S),
    "of the future": _aged(_HOUR_S, 2 * _HOUR_S),
    "not yet": _aged(0, 2 * _HOUR_S, begins_s=_HOUR_S),
    "without an end": lambda token: token.forged(exp=None),
    "with an end beyond its kind": _aged(0, 400 * 24 * _HOUR_S),
    "another audience": lambda token: token.forged(aud="somebody-else"),
    "several audiences": lambda token: token.forged(aud=[token.payload["aud"], "somebody-else"]),
    "no audience": lambda token: token.forged(aud=None),
    "another issuer": lambda token: token.forged(iss="https://issuer.example"),
    "no subject": lambda token: token.forged(sub=None),
    "another subject under the old signature": lambda token: (
        f"{_parts(token.header, {**token.payload, 'sub': new_id('usr')})}.{token.text.rpartition('.')[2]}"
    ),
    "without its last character": lambda token: token.text[:-1],
    "twice": lambda token: f"{token.text}.{token.text}",
    "nothing": lambda token: "x",
}


class Door:
    """A port that takes one kind of token, and a call there that is good with a good token."""

    def __init__(self, kind: TokenKind, target: Target | None = None) -> None:
        self.kind, self.target = kind, target
        self._request = b""

    def __str__(self) -> str:
        return str(self.target) if self.target else self.kind.typ

    async def asked(self, scene: Scene, token: str, device_id: str = "") -> Refusal | None:
        """What is answered to the bearer, who is at ann's device, or at another one."""
        if self.kind is TokenKind.SYNC:
            return await _hello(scene, token, device_id or scene.ann.device_id)
        if self.target is None:
            return (await scene.edge.post(f"{_SESSIONS}/GetCaller", b"{}", token)).refusal
        name, text = (AUTHORIZATION_KEY, f"Bearer {token}") if self.kind is TokenKind.WORKER else (PRINCIPAL_KEY, token)
        service = () if self.kind is TokenKind.WORKER else tuple(scene.rpc.service(self.target.process, "control"))
        if not self._request:
            example = (await EXAMPLES[self.target.path](scene, self.target.process))[0]
            self._request = self.target.request(example).SerializeToString()
        return (await scene.rpc.call(self.target, [self._request], (*service, (name, text)))).refusal

    async def token(self, scene: Scene) -> Token:
        """A good one."""
        key = load_key(load_or_create(scene.stack.home / "secrets").signing_key_file.read_text())
        text = await _GOOD[self.kind](scene, self.target.process if self.target else "")
        header, payload, _ = text.split(".")
        return Token(text, _decoded(header), _decoded(payload), key)


async def _hello(scene: Scene, token: str, device_id: str) -> Refusal | None:
    about = {"client_build_id": "fuzz/1", "protocol_version": 1, "schema_version": 1}
    async with connected(scene, Form.JSON) as client:
        with suppress(ConnectionClosed):  # what it said before it hung up is read below
            await client.say({"hello": {"token": token, "device_id": device_id, **about}})
            await client.say(PING)
        return (await client.hear()).refusal


async def _access(scene: Scene, _: str) -> str:
    return (await scene.sign_in("ann")).access_token


async def _principal(scene: Scene, process: str) -> str:
    return scene.rpc.principal(process, scene.ann)[1]


async def _worker(scene: Scene, _: str) -> str:
    return scene.worker.token


async def _sync(scene: Scene, _: str) -> str:
    return await scene.sync_token(scene.ann, f"user:{scene.ann.user_id}:runs")


_GOOD: Mapping[TokenKind, Callable[[Scene, str], Awaitable[str]]] = {
    TokenKind.ACCESS: _access,
    TokenKind.PRINCIPAL: _principal,
    TokenKind.WORKER: _worker,
    TokenKind.SYNC: _sync,
}
_METHODS = ("GetRun", "ListRunSummaries", "ReadHeldRun")
TARGETS = [one for one in all_targets() if one.path.rpartition("/")[2] in _METHODS]
DOORS = [
    Door(TokenKind.ACCESS),
    Door(TokenKind.SYNC),
    *(Door(TokenKind.WORKER if one.need is Need.WORKER else TokenKind.PRINCIPAL, one) for one in TARGETS),
]
OF_SESSIONS = [door for door in DOORS if door.kind is not TokenKind.WORKER and "projector" not in str(door)]
"""The projector follows no revocations: its only tokens are those with which control calls it, for a minute each."""
(_EDGE,) = (door for door in DOORS if door.kind is TokenKind.ACCESS)
(_WORKERS,) = (door for door in DOORS if door.kind is TokenKind.WORKER)


async def test_every_kind_of_token_has_a_door() -> None:
    assert {door.kind for door in DOORS} == set(TokenKind)
    assert len(DOORS) == 2 + len(_METHODS)


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_a_good_token_opens_its_door(scene: Scene, door: Door) -> None:
    token = await door.token(scene)
    assert await door.asked(scene, token.text) is None
    assert await door.asked(scene, token.forged()) is None, "what the tests forge is good but for what they change"


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_a_wrong_token_opens_no_door(scene: Scene, door: Door) -> None:
    token = await door.token(scene)
    wrong = []
    for name, forge in TRICKS.items():
        if door.kind is TokenKind.PRINCIPAL:  # which lives for a minute only
            token = await door.token(scene)
        text = forge(token)
        refusal = await door.asked(scene, text)
        if refusal is None or refusal.reason not in _UNAUTHENTICATED or text in str(refusal):
            wrong.append((name, refusal))
    assert wrong == []


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_a_good_token_of_another_kind_opens_no_door(scene: Scene, door: Door) -> None:
    """Not as it is, and not under the audience of this door."""
    own = await door.token(scene)
    for other in DOORS:
        if other.kind is door.kind:
            continue
        token = await other.token(scene)
        for text in (token.text, token.forged(aud=own.payload["aud"])):
            refusal = await door.asked(scene, text)
            assert refusal is not None, (door, other)
            assert refusal.reason in _UNAUTHENTICATED, (door, other, refusal)


@pytest.mark.parametrize("door", OF_SESSIONS, ids=str)
async def test_a_token_of_a_session_that_was_revoked_opens_no_door(scene: Scene, door: Door) -> None:
    person = await scene.sign_in("ann")
    text = await _token_of(scene, door, person)
    await scene.edge.call(f"{_SESSIONS}/RevokeSession", {}, person.access_token)
    await _until_refused(scene, door, text, person.device_id)


@pytest.mark.parametrize("door", OF_SESSIONS, ids=str)
async def test_a_token_of_a_person_who_was_blocked_opens_no_door(scene: Scene, door: Door) -> None:
    person = await scene.sign_in(f"blocked-{door.kind.typ.lower()}")
    text = await _token_of(scene, door, person)
    await scene.rpc.operate(_BLOCK, {"subject": person.user_id})
    await _until_refused(scene, door, text, person.device_id)


@pytest.mark.parametrize("end", ["revoked", "blocked"])
async def test_a_token_of_a_service_account_that_was_revoked_or_blocked_opens_no_door(scene: Scene, end: str) -> None:
    made = await scene.service_account(scene.ann)
    account_id, key = made["service_account"], made["api_key"]
    exchanged = {
        door: str((await scene.edge.call(f"{_ACCOUNTS}/ExchangeKey", {"api_key": key, "use": use}))["token"])
        for door, use in ((_WORKERS, "TOKEN_USE_WORKER"), (_EDGE, "TOKEN_USE_EDGE"))
    }
    if end == "blocked":
        await scene.rpc.operate(_BLOCK, {"subject": account_id})
    else:
        revoke = {"service_account_id": account_id}
        await scene.edge.call(f"{_ACCOUNTS}/RevokeServiceAccount", revoke, scene.ann.access_token)
    for door, text in exchanged.items():
        await _until_refused(scene, door, text)


async def _token_of(scene: Scene, door: Door, person: Person) -> str:
    """A good one of this person's for the door."""
    if door.kind is TokenKind.ACCESS:
        return person.access_token
    if door.kind is TokenKind.SYNC:
        return await scene.sync_token(person, f"user:{person.user_id}:runs")
    return scene.rpc.principal(door.target.process if door.target else "", person)[1]


async def _until_refused(scene: Scene, door: Door, token: str, device_id: str = "") -> None:
    """A revocation is on its way for a moment, in which the token is taken: somebody else's run is `not_found` then."""
    async with asyncio.timeout(PATIENCE_S):
        while (refusal := await door.asked(scene, token, device_id)) is None or refusal.reason == "not_found":
            await asyncio.sleep(0.05)
    assert refusal.reason == "token_revoked"
