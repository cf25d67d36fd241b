"""What control revokes is known everywhere, and ends what is open at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from oa_base.identity import ISSUER, REVOCATION_KEPT_S, TokenHolder
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import generate_key
from oa_platform.auth.revocations import Revocation, Revocations
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.rpc.revocation_watch import RevocationWatch, RevocationWatchLimits
from oa_testing.clock import FakeClock
from oa_testing.peers.revocations import ScriptedRevocations, serving
from oa_testing.waiting import eventually
from openagents.control.v1 import claims_pb2
from openagents.control.v1 import revocation_service_pb2 as pb

ADA = TokenHolder("usr_ada", "org_1", "ses_1", issued_s=100)
CI = TokenHolder("sva_ci", "org_1")
QUICK = RevocationWatchLimits(silence_s=0.5, ready_without_s=5, reconnect_first_ms=10, reconnect_max_ms=20)

LOST, BACK = pb.PLACE_CHANGE_LOST, pb.PLACE_CHANGE_BACK


def is_revoked(revocations: Revocations, holder: TokenHolder) -> bool:
    try:
        revocations.check(holder)
    except Refusal as refusal:
        return refusal.reason == "token_revoked"
    return False


# ------------------------------------------------------------------------------------------------- what is known


@pytest.mark.parametrize(
    ("revocation", "holder", "ends"),
    [
        (Revocation(session_id="ses_1"), ADA, True),
        (Revocation(session_id="ses_2"), ADA, False),
        (Revocation(session_id="ses_1"), CI, False),
        (Revocation(subject="sva_ci"), CI, True),
        (Revocation(subject="usr_ada"), ADA, True),
        (Revocation(subject="usr_ada", org_id="org_1"), ADA, True),
        (Revocation(subject="usr_ada", org_id="org_2"), ADA, False),
        (Revocation(session_id="ses_1", subject="usr_eve"), ADA, False),
        (Revocation(subject="usr_ada", issued_before_s=100.5), ADA, True),
        (Revocation(subject="usr_ada", issued_before_s=100.0), ADA, False),
        (Revocation(), ADA, False),
        (Revocation(org_id="org_1"), ADA, True),
        (Revocation(org_id="org_2"), ADA, False),
        (Revocation(org_id="org_1", issued_before_s=100.001), ADA, True),
        (Revocation(org_id="org_1", issued_before_s=100.0), ADA, False),
    ],
)
def test_a_revocation_ends_what_matches_all_that_it_says(
    revocation: Revocation, holder: TokenHolder, ends: bool
) -> None:
    revocations = Revocations(FakeClock())
    told: list[Refusal] = []
    stop = revocations.watch(holder, told.append)
    revocations.take([revocation], 1)
    assert revocation.ends(holder) == is_revoked(revocations, holder) == bool(told) == ends
    stop()
    again: list[Refusal] = []
    revocations.watch(holder, again.append)()
    assert bool(again) == ends, "what is opened by a revoked token is told at once"
    assert not revocations._watched


def _count(told: dict[int, int], number: int, _: Refusal) -> None:
    told[number] = told.get(number, 0) + 1


TEXTS = st.sampled_from(["", "a", "b"])
TIMES = st.none() | st.integers(0, 3).map(float)
REVOCATIONS = st.builds(Revocation, TEXTS, TEXTS, TEXTS, TIMES)
HOLDERS = st.builds(TokenHolder, TEXTS, TEXTS, TEXTS, st.integers(0, 3))


@given(st.lists(REVOCATIONS), st.lists(HOLDERS))
def test_the_index_finds_what_a_look_at_all_would_find(items: list[Revocation], holders: list[TokenHolder]) -> None:
    revocations = Revocations(FakeClock())
    told: dict[int, int] = {}
    for number, holder in enumerate(holders):
        revocations.watch(holder, partial(_count, told, number))
    for position, revocation in enumerate(items, 1):
        revocations.take([revocation], position)
    for number, holder in enumerate(holders):
        matching = sum(revocation.ends(holder) for revocation in items)
        assert is_revoked(revocations, holder) == bool(matching)
        assert told.get(number, 0) == matching


async def test_it_forgets_what_ends_no_token_any_more() -> None:
    clock = FakeClock()
    revocations = Revocations(clock)
    revocations.take([Revocation(session_id="ses_1"), Revocation(session_id="ses_1")], 2)
    await clock.advance(REVOCATION_KEPT_S / 2)
    revocations.take([Revocation(subject="sva_ci")], 3)
    await clock.advance(REVOCATION_KEPT_S / 2 + 1)
    revocations.take([], 3)
    assert (is_revoked(revocations, ADA), is_revoked(revocations, CI)) == (False, True)
    await clock.advance(REVOCATION_KEPT_S)
    revocations.take([], 3)
    assert (revocations._by_name, len(revocations._ages)) == ({}, 0)


async def test_a_token_that_was_verified_before_is_refused_once_it_is_revoked() -> None:
    clock, key = FakeClock(), generate_key()
    revocations = Revocations(clock)
    verifier = TokenVerifier(StaticKeys([key.public_key]), clock, revocations=revocations)
    now = int(clock.time())
    common: dict[str, Any] = {"iss": ISSUER, "aud": "runtime", "jti": "tok_1", "iat": now, "nbf": now, "exp": now + 60}
    worker = sign_token(claims_pb2.WorkerTokenClaims(sub="sva_ci", **common), key)
    person = sign_token(claims_pb2.PrincipalClaims(sub="usr_ada", session_id="ses_1", **common), key)
    await verifier.verify(worker, claims_pb2.WorkerTokenClaims, audience="runtime")
    await verifier.verify(person, claims_pb2.PrincipalClaims, audience="runtime")
    revocations.take([Revocation(session_id="ses_1"), Revocation(subject="sva_ci")], 2)
    with pytest.raises(Refusal, match="token_revoked"):
        await verifier.verify(worker, claims_pb2.WorkerTokenClaims, audience="runtime")
    with pytest.raises(Refusal, match="token_revoked"):
        await verifier.verify(person, claims_pb2.PrincipalClaims, audience="runtime")


def test_a_defect_of_one_that_is_told_keeps_a_revocation_from_nobody_else() -> None:
    def broken(_: object) -> None:
        raise KeyError("a defect")

    revocations, told = Revocations(FakeClock()), list[str]()
    revocations.listen(broken)
    revocations.listen(lambda one: told.append(one.subject))
    revocations.watch(ADA, broken)
    revocations.watch(ADA, lambda refusal: told.append(refusal.reason))
    revocations.take([Revocation(subject="usr_ada"), Revocation(subject="usr_eve")], 2)
    assert told == ["usr_ada", "token_revoked", "usr_eve"]


# ------------------------------------------------------------------------------------------------- following control


@asynccontextmanager
async def following(port: int, revocations: Revocations, clock: FakeClock) -> AsyncIterator[RevocationWatch]:
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        watch = RevocationWatch(channel, revocations, clock, lambda: 1.0, QUICK)
        task = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def session(number: int) -> pb.Revocation:
    return pb.Revocation(session_id=f"ses_{number}", reason="user_requested")


def known(revocations: Revocations, *numbers: int) -> bool:
    return all(is_revoked(revocations, TokenHolder("usr", "org", f"ses_{number}")) for number in numbers)


async def test_what_was_revoked_before_and_what_is_revoked_later_arrives() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    revocations = Revocations(clock)
    await control.revoke(session(1), session(2))
    async with serving(control), following(control.port, revocations, clock) as watch:
        await eventually(lambda: known(revocations, 1, 2))
        await watch.check()
        told: list[Refusal] = []
        revocations.watch(TokenHolder("usr", "org", "ses_3"), told.append)
        before = Timestamp(seconds=50)
        await control.revoke(session(3), pb.Revocation(subject="usr_ada", org_id="org_1", issued_before=before))
        await eventually(lambda: bool(told) and revocations.position == 4)
        assert not is_revoked(revocations, TokenHolder("usr_ada", "org_1", "ses_9", issued_s=50))
        assert is_revoked(revocations, TokenHolder("usr_ada", "org_1", "ses_9", issued_s=49))


async def test_what_was_revoked_while_control_was_away_comes_when_it_is_back_from_where_it_was() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    revocations = Revocations(clock)
    async with serving(control):
        port = control.port
        await control.revoke(session(1))
        watching = following(port, revocations, clock)
        await watching.__aenter__()
        await eventually(lambda: known(revocations, 1))
    await control.revoke(session(2))
    assert not known(revocations, 2)
    async with serving(control, port):
        await eventually(lambda: known(revocations, 2))
        assert control.asked_after[0] == 0
        assert set(control.asked_after[1:]) == {1}
        await watching.__aexit__(None, None, None)


async def test_a_stream_that_says_nothing_is_opened_again() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    revocations = Revocations(clock)
    control.silent = True
    async with serving(control), following(control.port, revocations, clock):
        await eventually(lambda: len(control.asked_after) >= 3)
        control.silent = False
        await control.revoke(session(1))
        await eventually(lambda: known(revocations, 1))


async def test_a_control_that_went_back_to_a_backup_is_followed_from_its_beginning_and_nothing_is_forgotten() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    revocations = Revocations(clock)
    await control.revoke(*(session(number) for number in range(1, 6)))
    async with serving(control):
        port = control.port
        watching = following(port, revocations, clock)
        await watching.__aenter__()
        await eventually(lambda: revocations.position == 5)
    del control.items[2:]
    await control.revoke(session(9))
    async with serving(control, port):
        await eventually(lambda: known(revocations, 9))
        assert revocations.position == 3
        assert known(revocations, *range(1, 6))
        await watching.__aexit__(None, None, None)


async def test_a_service_waits_a_while_for_what_was_revoked_before_it_began_and_then_works_without() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    async with serving(control):
        port = control.port
    async with following(port, Revocations(clock), clock) as watch:
        with pytest.raises(Refusal, match="unavailable"):
            await watch.check()
        await clock.advance(QUICK.ready_without_s + 0.1)
        await watch.check()


def test_ids_are_not_mixed_up() -> None:
    for session_id, subject, org_id in itertools.product(["", "x"], repeat=3):
        revocation = Revocation(session_id, subject, org_id)
        assert revocation.ends(TokenHolder("x", "x", "x")) == bool(session_id or subject or org_id)


async def test_what_is_revoked_again_and_again_is_known_once() -> None:
    clock = FakeClock()
    revocations = Revocations(clock)
    for number in range(1, 51):
        revocations.take([Revocation(subject="usr_ada", org_id="org_1", issued_before_s=100.0 + number)], number)
        await clock.advance(60)
    assert len(revocations._by_name["usr_ada"]) == 1
    revocations.take([Revocation(subject="usr_ada", org_id="org_1", issued_before_s=101.0)], 51)
    newest = TokenHolder("usr_ada", "org_1", "ses_1", issued_s=149.9)
    assert is_revoked(revocations, newest), "the newest of them counts"
    assert not is_revoked(revocations, replace(newest, issued_s=150.0))
    assert not is_revoked(revocations, replace(newest, org_id="org_2"))
    await clock.advance(REVOCATION_KEPT_S - 60)
    revocations.take([], 52)
    assert is_revoked(revocations, newest), "for as long as if it were the only one"
    await clock.advance(61)
    revocations.take([], 53)
    assert not is_revoked(revocations, newest)
    assert not revocations._by_name


async def test_every_change_of_a_place_is_told_in_its_order_also_to_who_listens_later() -> None:
    control, clock = ScriptedRevocations(), FakeClock()
    for change, before_s in ((LOST, 50), (BACK, 0), (LOST, 60), (BACK, 0)):
        row = pb.Revocation(subject="usr_ada", org_id="org_1", place_change=change)
        row.issued_before.FromSeconds(before_s)
        row.revoke_time.FromSeconds(1_000 + len(control.items))
        await control.revoke(row)
    revocations, heard, later = Revocations(clock), list[Revocation](), list[Revocation]()
    revocations.listen(heard.append)
    async with serving(control), following(control.port, revocations, clock):
        await eventually(lambda: revocations.position == 4)
    revocations.listen(later.append)
    told = [(one.place_change.value, one.position, one.revoked_s) for one in heard]
    assert told == [("lost", 1, 1_000), ("back", 2, 1_001), ("lost", 3, 1_002), ("back", 4, 1_003)]
    assert [(one.position, one.place_change) for one in later] == [(one.position, one.place_change) for one in heard]
    assert [is_revoked(revocations, replace(ADA, issued_s=at)) for at in (59, 60)] == [True, False]
