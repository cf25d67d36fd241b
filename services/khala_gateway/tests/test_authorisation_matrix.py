"""Who may follow what, in all combinations, through real sockets: the rules are said here once more, in plain tables.

Role x grant x surface x origin x kind of topic x whose the topic is; the same at a refresh; and state of the token x
origin x where the token is shown. No rule here is taken from the code that it is held against.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from oa_base.identity import ISSUER, KHALA_AUDIENCE
from oa_khala import frames
from oa_platform.auth.keys import generate_key
from oa_platform.auth.revocations import Revocation
from oa_platform.auth.tokens import sign_token
from openagents.control.v1.claims_pb2 import AccessTokenClaims, SyncTokenClaims
from services.khala_gateway.tests.harness import ORG, ORIGIN, USER, Client, Limits, Stack, running

COLLEAGUE = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V00"
STRANGER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V01"
OTHER_ORG = "org_01J9ZQ6T5W3M8K2N4P7R1S0V02"
FOREIGN_ORIGIN = "https://evil.example"

ACCOUNT = "sva_01J9ZQ6T5W3M8K2N4P7R1S0V03"

SCOPES: Mapping[str, list[str]] = {
    "owner": ["runs.read", "runs.write", "workers.read", "notifications.read", "orgs.own"],
    "viewer": ["runs.read", "workers.read", "notifications.read"],
    "service_account": ["runs.read", "runs.write", "workers.read"],
    "worker": ["workers.attach"],
    "nobody": [],
}
"""What a token of each role carries, as far as it matters here. Members and admins have what viewers have, and more."""


def principal(role: str) -> str:
    """Who has the role: USER, or a service account of the org."""
    return ACCOUNT if role == "service_account" else USER


NEEDS = {
    "run:*:events": "runs.read",
    "worker:*:lifecycle": "workers.read",
    "user:*:runs": "runs.read",
    "user:*:notifications": "notifications.read",
    "org:*:runs": "runs.read",
    "org:*:workers": "workers.read",
}
OF_OWNERS = ("run:*:events", "worker:*:lifecycle")
"""Kinds whose topics belong to somebody who is not in their names."""

GRANTS = ("named", "all of mine", "all of my org", "all of another org", "none")
SURFACES = ("cli", "web", "third_party")
ORIGINS = (None, ORIGIN)


@dataclass(frozen=True)
class Subject:
    """A topic, and whose its source says that it is; without owners there is no such topic."""

    kind: str
    name: str
    user: str = ""
    org: str = ""

    @property
    def exists(self) -> bool:
        return bool(self.user or self.org)


def subjects() -> Iterator[Subject]:
    owners = [(USER, ORG), (COLLEAGUE, ORG), (USER, OTHER_ORG), (STRANGER, OTHER_ORG), (ACCOUNT, ORG), ("", "")]
    for kind, (number, (user, org)) in itertools.product(OF_OWNERS, enumerate(owners)):
        prefix = "run" if kind.startswith("run") else "wrk"
        yield Subject(kind, kind.replace("*", f"{prefix}_01J9ZQ6T5W3M8K2N4P7R1S0W0{number}"), user, org)
    for kind in ("user:*:runs", "user:*:notifications"):
        for user in (USER, COLLEAGUE, STRANGER):
            yield Subject(kind, kind.replace("*", user), user)
        yield Subject(kind, kind.replace("*", "usr_01J9ZQ6T5W3M8K2N4P7R1S0V09"))
    for kind in ("org:*:runs", "org:*:workers"):
        for org in (ORG, OTHER_ORG):
            yield Subject(kind, kind.replace("*", org), org=org)
        yield Subject(kind, kind.replace("*", "org_01J9ZQ6T5W3M8K2N4P7R1S0V09"))


SUBJECTS = tuple(subjects())


def expected(role: str, grant: str, subject: Subject) -> str:
    """The reason for which the topic is refused; empty when it is opened."""
    by_name = grant == "named"
    if not by_name and (grant == "none" or not (subject.kind in OF_OWNERS and _may_be_all(grant, subject.kind))):
        return "forbidden_topic"
    if NEEDS[subject.kind] not in SCOPES[role]:
        return "missing_scope"
    # What control did not know when it made the token, nobody learns from a refusal.
    is_known = by_name and subject.kind != "worker:*:lifecycle"
    if not subject.exists:
        return "not_found" if is_known else "forbidden_topic"
    if _is_theirs(principal(role), grant, subject):
        return ""
    return "owner_mismatch" if is_known else "forbidden_topic"


def _may_be_all(grant: str, kind: str) -> bool:
    """Workers belong to orgs; nobody has all workers of a person."""
    return not (grant == "all of mine" and kind == "worker:*:lifecycle")


def _is_theirs(who: str, grant: str, subject: Subject) -> bool:
    match grant:
        case "named":
            return subject.user == who or subject.org == ORG
        case "all of mine":
            return (subject.user, subject.org) == (who, ORG)
        case "all of my org":
            return subject.org == ORG
        case _:
            return False


def claims_of(role: str, grant: str) -> dict[str, Any]:
    """Claims of a token in ORG."""
    claims: dict[str, Any] = {"sub": principal(role), "org_id": ORG, "scopes": SCOPES[role]}
    owner = {"all of mine": principal(role), "all of my org": ORG, "all of another org": OTHER_ORG}.get(grant)
    if owner is None:
        return claims | ({"topics": [one.name for one in SUBJECTS]} if grant == "named" else {})
    forms = [kind for kind in OF_OWNERS if _may_be_all(grant, kind)]
    grants = [SyncTokenClaims.TopicGrant(form=form, ids=[owner]) for form in forms]
    return claims | {"claims_version": 2, "grants": grants}


async def answers(client: Client) -> dict[str, str]:
    """What each topic is answered: a reason, or nothing where it was opened."""
    await client.send(frames.Subscribe(tuple((one.name, None) for one in SUBJECTS)))
    found: dict[str, str] = {}
    while len(found) < len(SUBJECTS):
        match await client.receive():
            case frames.Subscribed(topic=topic):
                found[topic] = ""
            case frames.ErrorFrame(topic=topic, reason=reason):
                found[topic] = reason
    return found


def create_subjects(stack: Stack) -> None:
    stack.runtime.logs.clear()
    stack.projector.logs.clear()
    for one in SUBJECTS:
        upstream = stack.runtime if one.kind in OF_OWNERS else stack.projector
        if one.exists:
            upstream.create(one.name, one.user, 1).owner_org_id = one.org


ROOMY = Limits().with_admission(handshake_burst_per_address=1_000).with_session(subscribe_burst=1_000)


async def opened(stack: Stack, origin: str | None, token: str) -> Client:
    client = await Client.open(stack.url, origin=origin)
    await client.hello(token)
    await client.next(frames.Welcome)
    return client


async def test_every_role_grant_surface_and_origin_opens_what_the_table_says() -> None:
    async with running(ROOMY) as stack:
        create_subjects(stack)
        for role, grant, surface, origin in itertools.product(SCOPES, GRANTS, SURFACES, ORIGINS):
            client = await opened(stack, origin, stack.token(**claims_of(role, grant), surface=surface))
            said = await answers(client)
            assert said == {one.name: expected(role, grant, one) for one in SUBJECTS}, (role, grant, surface, origin)
            client.socket.transport.abort()


async def test_a_refresh_ends_what_the_new_token_does_not_open_and_nothing_else() -> None:
    async with running(ROOMY) as stack:
        create_subjects(stack)
        for role, grant in itertools.product(SCOPES, GRANTS):
            before = "service_account" if role == "service_account" else "owner"
            client = await stack.connect(**claims_of(before, "named"))
            standing = {name for name, reason in (await answers(client)).items() if not reason}
            await client.send(frames.RefreshToken(stack.token(**claims_of(role, grant))))
            await client.send(frames.Ping(7))
            ended, heads = await after_refresh(client)
            refused = {one.name: reason for one in SUBJECTS if (reason := expected(role, grant, one))}
            assert ended == {name: reason for name, reason in refused.items() if name in standing}, (role, grant)
            assert heads == standing - set(refused), (role, grant)
            client.socket.transport.abort()


async def after_refresh(client: Client) -> tuple[dict[str, str], set[str]]:
    """Reasons of the topics that ended, and the topics that go on."""
    ended: dict[str, str] = {}
    while True:
        match await client.receive():
            case frames.ErrorFrame(topic=topic, reason=reason):
                ended[topic] = reason
            case frames.Heartbeat(nonce=7, heads=heads):
                return ended, {head.topic for head in heads}


# ------------------------------------------------------------------------------------------------- states of a token


def _later(seconds: int) -> dict[str, Any]:
    now = int(time.time())
    return {"iat": now + seconds, "nbf": now + seconds, "exp": now + seconds + 300}


def _common() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "sub": USER, "aud": KHALA_AUDIENCE, "jti": "jti", "iat": now, "nbf": now, "exp": now + 300}


STATES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "valid": ({}, ""),
    "expired": ({"ttl": -60}, "token_expired"),
    "expired a moment ago": ({"ttl": -1}, "token_expired"),
    "too long": ({"ttl": 24 * 3600}, "invalid_token"),
    "other audience": ({"aud": "openagents-edge"}, "invalid_token"),
    "other issuer": ({"iss": "somebody"}, "invalid_token"),
    "unknown version": ({"claims_version": 3}, "invalid_token"),
    "other device": ({"device_id": "dev_2"}, "invalid_token"),
    "revoked session": ({"session_id": "ses_revoked"}, "token_revoked"),
    "revoked person": ({"sub": STRANGER}, "token_revoked"),
    "revoked org": ({"org_id": OTHER_ORG}, "token_revoked"),
}
REVOKED = [Revocation("ses_revoked"), Revocation(subject=STRANGER), Revocation(org_id=OTHER_ORG)]
PLACES = ("header", "hello", "refresh")


def token_in(stack: Stack, state: str) -> tuple[str, str]:
    """A token in this state, and the reason for which it is refused."""
    if state == "another key":
        return sign_token(SyncTokenClaims(**_common()), generate_key()), "invalid_token"
    if state == "another kind":
        return sign_token(AccessTokenClaims(**_common()), stack.key), "invalid_token"
    if state == "future":
        return stack.token(**_later(3600)), "clock_skew"
    claims, reason = STATES[state]
    return stack.token(**claims), reason


async def outcome(stack: Stack, token: str, place: str, origin: str | None) -> str:
    """The reason for which the connection is refused, "welcome", or the status of its handshake."""
    headers = {"Authorization": f"Bearer {token}"} if place == "header" else {}
    try:
        client = await Client.open(stack.url, origin=origin, additional_headers=headers)
    except InvalidStatus as error:
        return str(error.response.status_code)
    await client.hello({"header": "", "hello": token, "refresh": stack.token()}[place])
    if place == "refresh":
        await client.next(frames.Welcome)
        await client.send(frames.RefreshToken(token))
        await client.send(frames.Ping(1))
    answer = await client.receive()
    client.socket.transport.abort()
    return answer.reason if isinstance(answer, frames.ErrorFrame) else ""


async def test_every_state_of_a_token_is_answered_alike_wherever_it_is_shown() -> None:
    states = [*STATES, "another key", "another kind", "future"]
    async with running(ROOMY) as stack:
        stack.revocations.take(REVOKED, len(REVOKED))
        for state, place, origin in itertools.product(states, PLACES, (*ORIGINS, FOREIGN_ORIGIN)):
            token, reason = token_in(stack, state)
            said = await outcome(stack, token, place, origin)
            assert said == ("403" if origin == FOREIGN_ORIGIN else reason), (state, place, origin)


@pytest.mark.parametrize(
    "other", [{"sub": COLLEAGUE}, {"org_id": ORG}, {"session_id": "ses_2"}, {"device_id": "dev_2"}]
)
async def test_a_refresh_with_another_session_is_refused(other: dict[str, Any]) -> None:
    async with running(ROOMY) as stack:
        assert await outcome(stack, stack.token(**other), "refresh", None) == "invalid_token"
