"""Admits clients: first a handshake for which there is room, then a sync token that no other connection holds."""

from collections.abc import Callable, Sequence
from typing import Protocol

from oa_base.crowd import Crowd, Shares
from oa_base.identity import API_KEY_PREFIX
from oa_base.refusal import Refusal
from oa_khala.server.admission import Grant
from oa_platform.auth.bearer import bearer_token
from oa_platform.telemetry.metrics import count_refusal
from services.khala_gateway.admission.domain import FULL_RETRY_MS, OriginPolicy, Pace, Room, check_path
from services.khala_gateway.admission.limits import AdmissionLimits


class SyncTokens(Protocol):
    """Verifies sync tokens."""

    async def verify(self, token: str) -> Grant:
        """The grant of `token`. Raises Refusal."""
        ...


class Holder(Protocol):
    """A connection that holds a token."""

    def token_replayed(self) -> None:
        """Handle that another connection came with the same token."""
        ...


class LiveTokens:
    """Allows one live connection per token, not too many per session or principal, and not all to one org. Its size is
    bounded by the number of connections."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        limits = limits or AdmissionLimits()
        self._holders: dict[str, Holder] = {}
        self._sessions = Crowd("session", limits.connections_per_session)
        self._principals = Crowd("principal", limits.connections_per_principal)
        self._orgs = Shares(limits.max_connections)

    def check(self, grant: Grant) -> None:
        """Raises Refusal `rate_limited` when one more connection of this session or principal is too many, and
        `overloaded` when the gateway is almost full of connections of the grant's org.

        A connection whose token is held already takes the place of the holder.
        """
        if grant.jti not in self._holders:
            self._sessions.check(_session_of(grant))
            self._principals.check(grant.subject)
            if not self._orgs.has_room(grant.org_id):
                text = "this gateway is almost full, mostly with connections of your org; try again"
                raise Refusal("overloaded", text, retry_after_ms=FULL_RETRY_MS)

    def claim(self, grant: Grant, holder: Holder) -> None:
        """Make `holder` the one connection of this token from now on."""
        self._sessions.came(_session_of(grant))
        self._principals.came(grant.subject)
        self._orgs.came(grant.org_id)
        previous = self._holders.get(grant.jti)
        self._holders[grant.jti] = holder
        if previous is not None and previous is not holder:
            previous.token_replayed()

    def release(self, grant: Grant, holder: Holder) -> None:
        """Release this token, which `holder` claimed and no longer uses."""
        self._sessions.went(_session_of(grant))
        self._principals.went(grant.subject)
        self._orgs.went(grant.org_id)
        if self._holders.get(grant.jti) is holder:
            del self._holders[grant.jti]


def _session_of(grant: Grant) -> str:
    """The session of a person; empty for an API key: many machines may share it, and their principal has a limit."""
    return "" if grant.session_id.startswith(API_KEY_PREFIX) else grant.session_id


class Admission:
    """Admits handshakes before anything is verified, so that refusing is cheap."""

    def __init__(self, policy: OriginPolicy, limits: AdmissionLimits, now_ms: Callable[[], int]) -> None:
        self._policy = policy
        self._room = Room(limits, now_ms())
        self._pace = Pace(limits)
        self._waiting = Crowd("network", limits.waiting_per_address)
        self._networks = Crowd("network", limits.connections_per_address)
        self._now_ms = now_ms

    def drain(self) -> None:
        """Admit no more clients."""
        self._room.drain()

    def admit(
        self, connections: int, network: str, path: str, origins: Sequence[str], authorizations: Sequence[str]
    ) -> str:
        """The bearer token of a request's Authorization headers, empty without one; it is the last of `connections`.

        A network that asks too often is refused first, so that this costs the others nothing. Raises Refusal:
        `draining`, `rate_limited`, `overloaded`, `not_found`, `origin_not_allowed`, `invalid_authorization_scheme`.
        """
        self._room.check()
        self._pace.take(network, self._now_ms())
        self._networks.check(network)
        self._room.take(connections, self._now_ms())
        check_path(path)
        self._policy.check(origins)
        header = ", ".join(authorizations)
        return bearer_token(header) if header else ""

    def arrived(self, network: str) -> bool:
        """Count a TCP connection of `network` that has sent no request yet. Returns False when there are too many."""
        try:
            self._waiting.check(network)
        except Refusal as refusal:
            count_refusal(refusal.reason, "ws")
            return False
        self._waiting.came(network)
        return True

    def asked(self, network: str) -> None:
        """Note that one of them has sent a request, or has closed."""
        self._waiting.went(network)

    def came(self, network: str) -> None:
        """Note that a connection of `network` is open."""
        self._networks.came(network)

    def went(self, network: str) -> None:
        """Note that a connection of `network` has closed."""
        self._networks.went(network)
