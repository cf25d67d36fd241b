"""Which calls about orgs are repeated while the edge is away, and which are sent once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest

from oa_base.refusal import Refusal
from oa_client.edge.calls import ATTEMPTS, AccessToken, Edge
from oa_client.edge.orgs import Orgs
from oa_client.edge.tests.answers import connect_error
from oa_client.transport import HttpAnswer

ORG, USER, INVITATION = "org_1", "usr_1", "inv_1"
REPEATED: list[Callable[[Orgs], Awaitable[object]]] = [
    lambda orgs: orgs.list(),
    lambda orgs: orgs.rename(ORG, "team"),
    lambda orgs: orgs.delete(ORG),
    lambda orgs: orgs.restore(ORG),
    lambda orgs: orgs.members(ORG),
    lambda orgs: orgs.invitations(ORG),
    lambda orgs: orgs.own_invitations(),
]
SENT_ONCE: list[Callable[[Orgs], Awaitable[object]]] = [
    lambda orgs: orgs.create("team"),
    lambda orgs: orgs.set_role(ORG, USER, "viewer"),
    lambda orgs: orgs.remove(ORG, USER),
    lambda orgs: orgs.leave(ORG),
    lambda orgs: orgs.transfer(ORG, USER),
    lambda orgs: orgs.invite(ORG, "ada@example.org", "viewer"),
    lambda orgs: orgs.resend(ORG, INVITATION),
    lambda orgs: orgs.revoke(ORG, INVITATION),
    lambda orgs: orgs.accept(INVITATION),
    lambda orgs: orgs.decline(INVITATION),
]


class AwayEdge:
    """An edge that is away. The last answer of a call that succeeded may have been lost just so."""

    def __init__(self) -> None:
        self.posts = 0

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        self.posts += 1
        return HttpAnswer(503, connect_error(Refusal("unavailable", "away", retry_after_ms=1)))

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


class Tokens:
    """Always the same token."""

    renewed_after = frozenset[str]()

    async def current(self) -> AccessToken:
        return AccessToken("token")

    async def renewed(self, rejected: AccessToken) -> AccessToken:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("call", "posts"), [*((call, ATTEMPTS) for call in REPEATED), *((call, 1) for call in SENT_ONCE)]
)
async def test_a_call_whose_repetition_may_be_refused_is_sent_once(
    call: Callable[[Orgs], Awaitable[object]], posts: int
) -> None:
    edge = AwayEdge()
    with pytest.raises(Refusal) as refused:
        await call(Orgs(Edge("http://edge.test", edge, "build"), Tokens()))
    assert (refused.value.reason, edge.posts) == ("unavailable", posts)
