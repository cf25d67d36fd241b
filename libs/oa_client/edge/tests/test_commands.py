"""Commands against an edge that answers as the test says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oa_base.refusal import Refusal
from oa_client.edge.calls import DATE_AGE_S, AccessToken, Edge
from oa_client.edge.commands import Commands
from oa_client.edge.tests.answers import answered, connect_error
from oa_client.transport import HttpAnswer
from openagents.control.v1 import session_service_pb2 as session_pb2
from openagents.control.v1 import sync_token_service_pb2 as pb

NOW = 1_000_000


class FakeHttp:
    """Mints sync tokens of five minutes."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        answer = pb.MintSyncTokenResponse(token="sync")
        answer.expire_time.FromSeconds(NOW + 300)
        return answered(answer, NOW)

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


class Signed:
    """One access token."""

    renewed_after = frozenset[str]()

    async def current(self) -> AccessToken:
        return AccessToken("access")

    async def renewed(self, token: AccessToken) -> AccessToken:
        raise NotImplementedError


@pytest.mark.parametrize("wrong_by", [-86_400.0, 0.0, 86_400.0])
async def test_a_sync_token_lives_as_long_as_the_edge_says_whatever_our_clock_shows(wrong_by: float) -> None:
    edge = Edge("http://edge.test", FakeHttp(), "build", now=lambda: NOW + wrong_by)
    grant = await Commands(edge, Signed()).sync_token(["run:x"], surface="sdk")
    assert grant.expires_in_ms == 300_000 - DATE_AGE_S * 1000


class LosingEdge:
    """Ends the caller's session at the first call, and is away before it can say so."""

    def __init__(self) -> None:
        self.posts = 0

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        self.posts += 1
        lost = Refusal("unavailable", "away", retry_after_ms=1)
        refusal = lost if self.posts == 1 else Refusal("token_revoked", "your access has ended; sign in again")
        return HttpAnswer(refusal.info.http_status, connect_error(refusal))

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


async def test_our_own_session_has_ended_if_the_repetition_of_the_call_is_not_let_in() -> None:
    edge = LosingEdge()
    await Commands(Edge("http://edge.test", edge, "build"), Signed()).revoke_session()
    assert edge.posts == 2


async def test_the_end_of_another_session_is_not_taken_for_granted() -> None:
    with pytest.raises(Refusal) as refused:
        await Commands(Edge("http://edge.test", LosingEdge(), "build"), Signed()).revoke_session("ses_2")
    assert refused.value.reason == "token_revoked"


class Sessions:
    """A person's sessions at an edge. Answers to the ends of sessions are lost at first."""

    def __init__(self, lost: int) -> None:
        self._lost = lost
        self.active = {"ses_1": "dev_1", "ses_2": "dev_2", "ses_3": "dev_3"}
        """Session -> device. The first one is the caller's."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        if url.endswith("/ListSessions"):
            return answered(session_pb2.ListSessionsResponse(sessions=self._listed()))
        if "ses_1" not in self.active:
            return HttpAnswer(401, connect_error(Refusal("token_revoked", "your access has ended; sign in again")))
        request = session_pb2.RevokeSessionsRequest.FromString(body)
        ended = [
            session_id
            for session_id, device_id in self.active.items()
            if request.device_id in ("", device_id) and not (request.keep_current and session_id == "ses_1")
        ]
        for session_id in ended:
            del self.active[session_id]
        if self._lost:
            self._lost -= 1
            return HttpAnswer(503, connect_error(Refusal("unavailable", "lost", retry_after_ms=1)))
        return answered(session_pb2.RevokeSessionsResponse(session_ids=ended))

    def _listed(self) -> list[session_pb2.Session]:
        gone = session_pb2.Session(session_id="ses_0", device_id="dev_2")
        gone.revoke_time.FromSeconds(NOW)
        return [gone] + [
            session_pb2.Session(session_id=session_id, device_id=device_id, current=session_id == "ses_1")
            for session_id, device_id in self.active.items()
        ]

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(
    ("device_id", "keep_current", "expected"),
    [("", False, {"ses_1", "ses_2", "ses_3"}), ("", True, {"ses_2", "ses_3"}), ("dev_2", False, {"ses_2"})],
)
async def test_the_sessions_that_were_ended_are_named_also_if_an_answer_was_lost(
    lost: int, device_id: str, keep_current: bool, expected: set[str]
) -> None:
    edge = Sessions(lost)
    commands = Commands(Edge("http://edge.test", edge, "build"), Signed())
    ended = await commands.revoke_sessions(device_id, keep_current=keep_current)
    assert (set(ended), len(ended)) == (expected, len(expected))
    assert not expected & set(edge.active)
