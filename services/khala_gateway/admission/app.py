"""What lets a client in: a handshake for which there is room, then a sync token that no other connection holds."""

from collections.abc import Callable, Sequence
from typing import Protocol

from oa_khala.server.admission import Grant
from oa_platform.auth.bearer import bearer_token
from services.khala_gateway.admission.domain import OriginPolicy, Room, check_path
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
    """One live connection per token: jti -> the connection that holds it, so bounded by the number of connections."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}

    def claim(self, jti: str, holder: Holder) -> None:
        """`holder` is the one connection of `jti` from now on."""
        previous = self._holders.get(jti)
        self._holders[jti] = holder
        if previous is not None and previous is not holder:
            previous.token_replayed()

    def release(self, jti: str, holder: Holder) -> None:
        """`holder` no longer uses `jti`."""
        if self._holders.get(jti) is holder:
            del self._holders[jti]


class Admission:
    """Lets handshakes in, before anything is verified: refusing is cheap."""

    def __init__(self, policy: OriginPolicy, limits: AdmissionLimits, now_ms: Callable[[], int]) -> None:
        self._policy = policy
        self._room = Room(limits, now_ms())
        self._now_ms = now_ms

    def drain(self) -> None:
        """Let nobody in any more."""
        self._room.drain()

    def admit(self, connections: int, path: str, origins: Sequence[str], authorizations: Sequence[str]) -> str:
        """The bearer token of a request's Authorization headers, empty without one; it is the last of `connections`.

        Raises Refusal: `draining`, `overloaded`, `not_found`, `origin_not_allowed`, `invalid_authorization_scheme`.
        """
        self._room.take(connections, self._now_ms())
        check_path(path)
        self._policy.check(origins)
        header = ", ".join(authorizations)
        return bearer_token(header) if header else ""
