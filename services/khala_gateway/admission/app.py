"""What lets a client in: a handshake for which there is room, then a sync token that no other connection holds."""

from collections.abc import Callable, Sequence
from typing import Protocol

from oa_base.identity import API_KEY_PREFIX
from oa_base.refusal import Refusal
from oa_khala.server.admission import Grant
from oa_platform.auth.bearer import bearer_token
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.admission.domain import Crowd, OriginPolicy, Pace, Room, check_path
from services.khala_gateway.admission.limits import AdmissionLimits


class SyncTokens(Protocol):
    """Verifies sync tokens."""

    async def verify(self, token: str) -> Grant:
        """What `token` grants. Raises Refusal."""
        ...


class Holder(Protocol):
    """A connection that holds a token."""

    def token_replayed(self) -> None:
        """Another connection came with the same token."""
        ...


class LiveTokens:
    """One live connection per token, and not too many of one session or principal. All of it is bounded by the number
    of connections."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        limits = limits or AdmissionLimits()
        self._holders: dict[str, Holder] = {}
        self._sessions = Crowd("session", limits.connections_per_session)
        self._principals = Crowd("principal", limits.connections_per_principal)

    def check(self, grant: Grant) -> None:
        """Raises Refusal `rate_limited` when one more connection of this session or principal is too many.

        One that comes with a token that is held takes the place of the one that holds it.
        """
        if grant.jti not in self._holders:
            self._sessions.check(_session_of(grant))
            self._principals.check(grant.subject)

    def claim(self, grant: Grant, holder: Holder) -> None:
        """`holder` is the one connection of this token from now on."""
        self._sessions.came(_session_of(grant))
        self._principals.came(grant.subject)
        previous = self._holders.get(grant.jti)
        self._holders[grant.jti] = holder
        if previous is not None and previous is not holder:
            previous.token_replayed()

    def release(self, grant: Grant, holder: Holder) -> None:
        """`holder`, which claimed this token, no longer uses it."""
        self._sessions.went(_session_of(grant))
        self._principals.went(grant.subject)
        if self._holders.get(grant.jti) is holder:
            del self._holders[grant.jti]


def _session_of(grant: Grant) -> str:
    """The session of a person; empty for an API key, which many machines may share: their principal has a limit."""
    return "" if grant.session_id.startswith(API_KEY_PREFIX) else grant.session_id


class Admission:
    """Lets handshakes in, before anything is verified: refusing is cheap."""

    def __init__(self, policy: OriginPolicy, limits: AdmissionLimits, now_ms: Callable[[], int]) -> None:
        self._policy = policy
        self._room = Room(limits, now_ms())
        self._pace = Pace(limits)
        self._waiting = Crowd("network", limits.waiting_per_address)
        self._networks = Crowd("network", limits.connections_per_address)
        self._now_ms = now_ms

    def drain(self) -> None:
        """Let nobody in any more."""
        self._room.drain()

    def admit(
        self, connections: int, network: str, path: str, origins: Sequence[str], authorizations: Sequence[str]
    ) -> str:
        """The bearer token of a request's Authorization headers, empty without one; it is the last of `connections`.

        What one network asks too often costs the others nothing: it is refused first. Raises Refusal: `draining`,
        `rate_limited`, `overloaded`, `not_found`, `origin_not_allowed`, `invalid_authorization_scheme`.
        """
        self._room.check()
        self._pace.take(network, self._now_ms())
        self._networks.check(network)
        self._room.take(connections, self._now_ms())
        check_path(path)
        self._policy.check(origins)
        header = ", ".join(authorizations)
        return bearer_token(header) if header else ""

    def arrived(self, peer: str) -> bool:
        """A TCP connection from `peer`, which has not asked for anything yet. False when there are too many."""
        try:
            self._waiting.check(peer)
        except Refusal as refusal:
            count_refusal(refusal.reason, "ws")
            return False
        self._waiting.came(peer)
        return True

    def asked(self, peer: str) -> None:
        """One of those has asked, or is gone."""
        self._waiting.went(peer)

    def came(self, network: str) -> None:
        """A connection of `network` is open."""
        self._networks.came(network)

    def went(self, network: str) -> None:
        """A connection of `network` is gone."""
        self._networks.went(network)
