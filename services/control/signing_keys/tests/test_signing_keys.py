"""Several replicas on one database: what one of them rotates, all of them sign and verify with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc.aio
import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.operators.signing_keys import SigningKeyOperators
from oa_platform.auth.keys import SigningKey, from_jwks, generate_key
from oa_testing.clock import FakeClock
from services.control.signing_keys.app import SigningKeys
from services.control.signing_keys.domain import KeyState
from services.control.signing_keys.door import SealedKeys
from services.control.signing_keys.limits import SigningKeyLimits
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import GATEWAY_TOKEN, HMAC_KEY, LOOPBACK, OPERATOR_TOKEN, Control, reason_of

LIMITS = SigningKeyLimits(published_for=timedelta(minutes=10))


async def replica(cases: Cases, own: SigningKey, hmac_key: bytes = HMAC_KEY.encode()) -> SigningKeys:
    box = SealedKeys(hmac_key)
    keys = SigningKeys(cases.transactions, cases.clock, box, own, [own.public_key], generate_key, LIMITS)
    await keys.start()
    return keys


async def takes(keys: SigningKeys, kid: str) -> bool:
    try:
        return await keys.public_key(kid) is not None
    except Refusal:
        return False


async def test_all_replicas_take_a_key_up_and_let_the_old_one_go(cases: Cases, clock: FakeClock) -> None:
    own = generate_key()
    one, other = await replica(cases, own), await replica(cases, own)
    assert [shown.state for shown in await one.list()] == [KeyState.SIGNING]

    following = (await one.rotate(ORIGIN))[-1].record.key_id
    assert one.signing.kid == own.kid
    await clock.advance(1)
    assert await takes(other, following), "who meets a key that it does not know looks for it"
    assert set(from_jwks(other.jwks())) == {own.kid, following}
    with pytest.raises(Refusal, match="already_exists"):
        await other.rotate(ORIGIN)

    await clock.advance(LIMITS.published_for.total_seconds())
    assert (one.signing.kid, other.signing.kid) == (following, following)
    assert await takes(one, own.kid)
    late = await replica(cases, own)
    assert late.signing.kid == following, "whoever starts now signs as the others do"

    await clock.advance(LIMITS.kept_for.total_seconds())
    for keys in (one, other, late):
        assert not await takes(keys, own.kid)
        assert set(from_jwks(keys.jwks())) == {following}
    assert [shown.state for shown in await one.list()] == [KeyState.ENDED, KeyState.SIGNING]
    assert not await takes(one, "never made")


async def test_a_stolen_key_is_refused_at_once(cases: Cases, clock: FakeClock) -> None:
    own = generate_key()
    one, other = await replica(cases, own), await replica(cases, own)
    now = (await one.rotate(ORIGIN, own.kid))[-1].record.key_id
    await clock.advance(1)
    assert await takes(other, now)
    for keys in (one, other):
        assert keys.signing.kid == now
        assert not await takes(keys, own.kid)


async def test_the_database_alone_gives_no_key_away(cases: Cases, clock: FakeClock) -> None:
    own = generate_key()
    first = await replica(cases, own)
    await first.rotate(ORIGIN)
    stranger = await replica(cases, own, b"another HMAC key, as somebody may guess it")
    await clock.advance(LIMITS.published_for.total_seconds())
    assert stranger.signing.kid == own.kid
    await first.rotate(ORIGIN, own.kid)
    with pytest.raises(Refusal, match="invalid_setting") as refused:
        await replica(cases, own, b"another HMAC key, as somebody may guess it")
    assert refused.value.field == "OA_SIGNING_KEY"
    fresh = generate_key()
    assert (await replica(cases, fresh, b"another HMAC key, as somebody may guess it")).signing.kid == fresh.kid


def test_a_sealed_key_is_bound_to_its_id() -> None:
    box, key = SealedKeys(HMAC_KEY.encode()), generate_key()
    sealed = box.seal(key)
    opened = box.open(key.kid, sealed)
    assert opened is not None
    assert opened.public_key == key.public_key
    assert box.open(generate_key().kid, sealed) is None
    assert box.open(key.kid, sealed[:-1]) is None
    assert box.seal(key) != sealed


@asynccontextmanager
async def calling(control: Control, token: str) -> AsyncIterator[SigningKeyOperators]:
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        yield SigningKeyOperators(channel, token)


async def test_an_operator_rotates_over_the_internal_port_and_nobody_else(control: Control) -> None:
    token = await control.access_token()
    async with calling(control, GATEWAY_TOKEN) as stranger, calling(control, OPERATOR_TOKEN) as operator:
        with pytest.raises(Refusal, match="caller_not_allowed"):
            await stranger.rotate(control.key.kid)
        made = await operator.rotate()
        assert [one.state for one in made] == ["signing", "published"]
        published = (await control.http.get("/.well-known/jwks.json")).json()["keys"]
        assert [key["kid"] for key in published] == [one.key_id for one in made]
        assert (await control.ok("control.SessionService/GetCaller", {}, token))["email"] == "ada@example.org"
        with pytest.raises(Refusal, match="not_found") as unknown:
            await operator.rotate("none")
        assert unknown.value.field == "stolen_key_id"
        await operator.rotate(control.key.kid)
        [of_settings, waiting, signing] = await operator.list()
        assert (of_settings.state, waiting.state, signing.state) == ("ended", "ended", "signing")
        assert of_settings.from_settings
        stolen = await control.call("control.SessionService/GetCaller", {}, token)
        assert reason_of(stolen) == "token_expired", "so clients get a new one by themselves"
