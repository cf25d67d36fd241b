"""A person with two processes, a network that loses, a laptop that dies and sleeps, and a thief: the real client with
its real file, against control's decisions. Nobody but a thief ends a session, and no thief goes unseen.

And one person with several sessions in the real database: refreshes, lost answers, thefts, revocations, blocks and
sign-ins, also at once, do what one after the other would, and each end is stored and told once.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oa_base.refusal import Refusal
from oa_client.cpython.files import FileCredentialStore
from oa_client.edge.auth import Auth, Credentials
from oa_client.edge.calls import Edge
from oa_client.edge.tests.answers import answered, connect_error
from oa_client.transport import HttpAnswer
from oa_testing.clock import FakeClock
from openagents.control.v1 import auth_service_pb2, session_service_pb2
from services.control.audit.domain import Origin
from services.control.policy.domain import Role, StandingPrincipal
from services.control.sessions.app import SessionTokens
from services.control.sessions.domain import (
    Session,
    StandingSession,
    access_token_id,
    decide_refresh,
    parse_refresh_token,
    refresh_token,
    used_counter,
)
from services.control.sessions.tests.several_sessions import Access, Call, Outcome, Person, Program, after
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id
from services.control.tokens.domain import ACCESS_TTL

KEY = b"a key of thirty-two bytes or more"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "dev_01JD8V0000000000000000000A"
SESSION_ID = "ses_01JD8V00000000000000000000"
GET_CALLER = "openagents.control.v1.SessionService/GetCaller"

FATES = ("fine", "request lost", "answer lost", "killed before the save", "killed after the save")
"""What becomes of a refresh. Whatever it is, nobody may be signed out by it."""


class Killed(Exception):
    """The process died here."""


class Control:
    """One session. It notes by itself what was given for what, and what was used, as texts: the rule is checked against
    that, not against counters."""

    def __init__(self) -> None:
        self.session = Session(SESSION_ID, "usr_1", "org_1", DEVICE, START, START)
        self.now = START
        self.given_for: dict[str, str] = {}
        self.used: set[str] = set()
        self.refresh_of_access: dict[str, str] = {}
        self.found: list[str] = []
        """Tokens whose successor had been used, presented once more."""

    def tokens(self) -> auth_service_pb2.SessionTokens:
        issued = self.session.refreshed_at
        access = f"{access_token_id(SESSION_ID, self.session.counter)} {issued.timestamp()}"
        tokens = auth_service_pb2.SessionTokens(
            access_token=access, refresh_token=refresh_token(KEY, SESSION_ID, self.session.counter)
        )
        tokens.access_expire_time.FromDatetime(issued + ACCESS_TTL)
        self.refresh_of_access[access] = tokens.refresh_token
        return tokens

    @property
    def over(self) -> bool:
        return self.session.revoked_at is not None or self.now >= self.session.expires_at

    def refresh(self, token: str) -> auth_service_pb2.RefreshSessionResponse | Refusal:
        over, successor = self.over, self.given_for.get(token)
        stolen = successor is not None and (successor in self.used or successor in self.given_for)
        done = decide_refresh(self.session, parse_refresh_token(KEY, token).counter, DEVICE, self.now)
        self.session = done.session
        if not over:
            assert done.reason == ("token_replay" if stolen else None)
            assert (self.session.revoked_at is not None) == stolen
        if done.reason:
            self.found += [token] * stolen
            return Refusal(done.reason, "ended")
        tokens = self.tokens()
        assert self.given_for.setdefault(token, tokens.refresh_token) == tokens.refresh_token
        return auth_service_pb2.RefreshSessionResponse(tokens=tokens)

    def call(self, access: str) -> session_service_pb2.GetCallerResponse | Refusal:
        jti, _, issued = access.partition(" ")
        if self.session.revoked_at:
            return Refusal("token_revoked", "ended")
        if self.now >= datetime.fromtimestamp(float(issued), UTC) + ACCESS_TTL:
            return Refusal("token_expired", "old")
        counter = max(self.session.used_counter, used_counter(SESSION_ID, jti))
        self.session = replace(self.session, used_counter=counter)
        self.used.add(self.refresh_of_access[access])
        return session_service_pb2.GetCallerResponse(email="ada@example.org")


class Network:
    """The way to control, for one process: the next refresh has a fate."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.fate = "fine"

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        await asyncio.sleep(0)
        if url.endswith("/RefreshSession"):
            return self._refresh(auth_service_pb2.RefreshSessionRequest.FromString(body))
        return _answer(self.control.call(headers["Authorization"].removeprefix("Bearer ")))

    def _refresh(self, request: auth_service_pb2.RefreshSessionRequest) -> HttpAnswer:
        if self.fate == "request lost":
            raise Refusal("unavailable", "lost")
        answer = self.control.refresh(request.refresh_token)
        if self.fate == "answer lost":
            raise Refusal("deadline_exceeded", "lost")
        return _answer(answer)

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


def _answer(
    answer: auth_service_pb2.RefreshSessionResponse | session_service_pb2.GetCallerResponse | Refusal,
) -> HttpAnswer:
    if isinstance(answer, Refusal):
        return HttpAnswer(answer.info.http_status, connect_error(answer))
    return answered(answer)


class MortalStore(FileCredentialStore):
    """The client's file, in a process that may die around a save."""

    def __init__(self, folder: Path, network: Network) -> None:
        super().__init__(folder)
        self._network = network

    def save(self, credentials: Credentials) -> None:
        if self._network.fate == "killed before the save":
            raise Killed
        super().save(credentials)
        if self._network.fate == "killed after the save":
            raise Killed


class StayingSignedIn(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="oa-signed-in-"))
        self.runner = asyncio.Runner()
        self.control = Control()
        self.copies: list[Credentials] = []

    @initialize()
    def sign_in(self) -> None:
        tokens = self.control.tokens()
        expires = tokens.access_expire_time.ToMilliseconds() / 1000
        FileCredentialStore(self.folder).save(
            Credentials("usr_1", "org_1", SESSION_ID, "", tokens.access_token, expires, tokens.refresh_token)
        )

    def teardown(self) -> None:
        self.runner.close()
        shutil.rmtree(self.folder)

    @property
    def stolen(self) -> bool:
        return bool(self.copies)

    async def _process(self, fate: str) -> str:
        """One command of the owner's, in a process of its own; how it ended."""
        network = Network(self.control)
        network.fate = fate
        edge = Edge("http://edge.test", network, "oa-test/0", now=self.control.now.timestamp)
        store = MortalStore(self.folder, network)
        auth = Auth(edge, store, DEVICE)
        request, response = session_service_pb2.GetCallerRequest(), session_service_pb2.GetCallerResponse
        try:
            await edge.call(GET_CALLER, request, response, auth)
        except Killed:
            return "killed"
        except Refusal as refusal:
            return refusal.reason
        return "ok"

    def _ended(self, fates: list[str]) -> list[str]:
        async def together() -> list[str]:
            return await asyncio.gather(*map(self._process, fates))

        return self.runner.run(together())

    def _check(self, fates: list[str]) -> None:
        """Without a theft and within the idle time, a command fails only for the network or its own death."""
        expired = self.control.over
        for fate, end in zip(fates, self._ended(fates), strict=True):
            if not self.stolen and not expired:
                mishaps = {"request lost": "unavailable", "answer lost": "deadline_exceeded"}
                assert end in ("ok", mishaps.get(fate, "killed" if fate != "fine" else "ok"))

    @rule(seconds=st.one_of(st.sampled_from([11, 31, 3571, 3600, 7200]), st.integers(0, 10 * 86_400)))
    def sleep(self, seconds: int) -> None:
        self.control.now += timedelta(seconds=seconds)

    @rule(fate=st.sampled_from(FATES))
    def a_command(self, fate: str) -> None:
        self._check([fate])

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=2, max_size=3))
    def commands_at_once(self, fates: list[str]) -> None:
        self._check(fates)

    @precondition(lambda self: len(self.copies) < 3)
    @rule()
    def copy_the_file(self) -> None:
        credentials = FileCredentialStore(self.folder).load()
        if credentials:
            self.copies.append(credentials)

    @precondition(lambda self: self.stolen)
    @rule(which=st.integers(0, 2), use=st.booleans())
    def the_thief_refreshes(self, which: int, use: bool) -> None:
        which %= len(self.copies)
        answer = self.control.refresh(self.copies[which].refresh_token)  # asserts the rule
        if isinstance(answer, Refusal):
            return
        tokens = answer.tokens
        self.copies[which] = replace(self.copies[which], refresh_token=tokens.refresh_token)
        if use:
            self.control.call(tokens.access_token)

    @invariant()
    def a_session_is_ended_by_a_theft_and_by_nothing_else(self) -> None:
        assert bool(self.control.found) == (self.control.session.revoked_at is not None)
        assert self.stolen or not self.control.found


TestStayingSignedIn = StayingSignedIn.TestCase


def test_owner_and_thief_can_not_take_turns() -> None:
    # With "used" meaning refreshed only, both would live on for ever, each given what the other was given.
    control = Control()
    owner = thief = control.tokens().refresh_token
    for _ in range(2):
        for holder in ("owner", "thief"):
            answer = control.refresh(owner if holder == "owner" else thief)
            if isinstance(answer, Refusal):
                assert (holder, answer.reason, control.session.revoked_at) == ("thief", "token_replay", control.now)
                return
            assert not isinstance(control.call(answer.tokens.access_token), Refusal)
            owner, thief = (answer.tokens.refresh_token, thief) if holder == "owner" else (owner, thief)
    raise AssertionError("the thief was not found")


# ------------------------------------------------------------------------------------------------- several sessions

PROGRAMS = 12
CALLS = 30
"""So many times one or several calls at once, in each program."""


class Signed:
    """One person with several devices, who calls the real use cases over the real database."""

    def __init__(self, cases: Cases, number: int) -> None:
        self.cases = cases
        self.number = number
        self.email = f"p{number}@example.org"
        self.given: list[Access] = []
        self.texts: dict[tuple[str, str], str] = {}
        """(session, generation) -> refresh token. There is one of each."""
        self.principals: dict[str, StandingPrincipal] = {}
        self.sign_ins = 0

    async def ready(self, call: Call) -> tuple[str, str, Origin]:
        """What a sign-in needs before: a challenge and its code; in a network of its own, for the limits of one."""
        if call.kind != "sign_in":
            return "", "", ORIGIN
        self.sign_ins += 1
        origin = Origin("req_test", f"10.0.{self.number}.{self.sign_ins}")
        started = await self.cases.started(self.email, call.device, origin)
        return started.challenge_id, self.cases.letters.codes[self.email], origin

    async def outcome(self, call: Call, before: tuple[str, str, Origin]) -> Outcome:
        try:
            return await self._done(call, before)
        except Refusal as refusal:
            return (refusal.reason,)

    async def _done(self, call: Call, before: tuple[str, str, Origin]) -> Outcome:
        cases = self.cases
        if call.kind == "refresh":
            token = self.texts[call.session_id, str(call.generation)]
            return self._tokens(call.session_id, await cases.sessions.refresh(token, call.device, ORIGIN))
        if call.kind == "use":
            assert call.access is not None
            await cases.admitted(call.access.text)
            return ("let in",)
        if call.kind == "sign_in":
            challenge_id, code, origin = before
            token = self.texts.get((call.session_id, str(call.generation)), "")
            signed_in = await cases.sign_in.verify(challenge_id, code, call.device, origin, token)
            session = signed_in.session
            self.principals[session.session_id] = StandingSession(session, Role.OWNER).principal
            return ("session", *self._tokens(session.session_id, signed_in.tokens)[1:])
        if call.kind == "revoke":
            _, ended = await cases.installation_sessions.revoke(self.email, call.session_id, ORIGIN)
            return ("ended", *sorted(ended))
        if call.kind == "revoke_others":
            mine = self.principals[call.session_id]
            ended = await cases.sessions.revoke_many(mine, "", ORIGIN, keep_current=True)
            return ("ended", *sorted(ended))
        await (cases.blocks.block if call.kind == "block" else cases.blocks.unblock)(self.email, ORIGIN)
        return (f"{call.kind}ed",)

    def _tokens(self, session_id: str, tokens: SessionTokens) -> Outcome:
        generation = tokens.refresh_token.split(".")[1]
        self.given.append(Access(session_id, int(generation), tokens.access_token, tokens.access_expires_at))
        assert self.texts.setdefault((session_id, generation), tokens.refresh_token) == tokens.refresh_token
        return ("tokens", session_id, generation)


async def _walked(cases: Cases, clock: FakeClock, seed: int) -> tuple[Signed, Person]:
    chance = random.Random(seed)
    program = Program(chance, [new_id("dev") for _ in range(3)])
    signed, beliefs = Signed(cases, seed), [Person()]
    for device in program.devices:
        beliefs = await _step(signed, beliefs, [Call("sign_in", device=device)], clock)
    for _ in range(CALLS):
        beliefs = await _step(signed, beliefs, program.calls(chance.choice(beliefs), signed.given), clock)
        if pause := program.pause().total_seconds():
            await clock.advance(pause)
    return signed, beliefs[0]


async def _step(signed: Signed, beliefs: list[Person], calls: list[Call], clock: FakeClock) -> list[Person]:
    before = [await signed.ready(call) for call in calls]
    got = await asyncio.gather(*map(signed.outcome, calls, before))
    found = after(beliefs, calls, got, clock.now())
    assert found, (calls, got, beliefs)
    return found


async def test_whatever_is_done_to_several_sessions_is_done_one_after_the_other_stored_and_told(
    cases: Cases, clock: FakeClock, admin: Any
) -> None:
    ends: Counter[str] = Counter()
    for seed in range(PROGRAMS):
        signed, person = await _walked(cases, clock, seed)
        statement = "SELECT session_id, coalesce(revoke_reason, '') AS reason FROM control.sessions WHERE user_id = $1"
        user_id = await admin.fetchval("SELECT user_id FROM control.users WHERE email = $1", signed.email)
        assert {row["session_id"]: row["reason"] for row in await admin.fetch(statement, user_id)} == {
            session_id: held.ended for session_id, held in person.sessions.items()
        }
        told = await admin.fetch(
            "SELECT session_id, reason FROM control.revocations WHERE session_id = ANY($1)", list(person.sessions)
        )
        assert sorted(map(tuple, told)) == sorted(
            (session_id, held.ended) for session_id, held in person.sessions.items() if held.ended
        ), "each end is told, once"
        audited = await admin.fetch(
            "SELECT action, count(*) FROM control.audit_events WHERE target = ANY($1) GROUP BY 1",
            [user_id, *person.sessions],
        )
        counts = {row["action"]: row["count"] for row in audited}
        assert counts.get("session.refreshed", 0) == person.refreshes
        assert {action: counts[action] for action in counts if action.startswith("subject.")} == +person.blocks
        ends.update(held.ended for held in person.sessions.values())
    assert set(ends) >= {"token_replay", "device_replaced", "admin_revoked", "user_requested"}, ends
