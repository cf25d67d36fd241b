"""A person with two processes, a network that loses, a laptop that dies and sleeps, and a thief: the real client with
its real file, against control's decisions. Nobody but a thief ends a session, and no thief goes unseen."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oa_base.refusal import Refusal
from oa_client.cpython.files import FileCredentialStore
from oa_client.edge.auth import Auth, Credentials
from oa_client.edge.calls import Edge
from oa_client.edge.tests.answers import connect_error
from oa_client.transport import HttpAnswer
from openagents.control.v1 import auth_service_pb2, session_service_pb2
from services.control.sessions.domain import (
    Session,
    access_token_id,
    decide_refresh,
    parse_refresh_token,
    refresh_token,
    used_counter,
)
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
    return HttpAnswer(200, answer.SerializeToString())


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
        edge = Edge("http://edge.test", network, "oa-test/0")
        store = MortalStore(self.folder, network)
        auth = Auth(edge, store, DEVICE, now=self.control.now.timestamp)
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
