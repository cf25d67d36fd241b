"""Follows what control revokes, for as long as the process runs.

    revocations = Revocations(clock)
    watch = RevocationWatch(channel, revocations, clock, random.random)
    process.background("revocations", watch.run())
    process.readiness.add("revocations", watch.check)

While control is away, nothing new is known. When it is back, it sends what was revoked meanwhile, from the position
where the stream broke. A service starts and works without control, because tokens can be verified without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import structlog
from prometheus_client import Gauge

from oa_base.backoff import Backoff
from oa_base.clock import SECOND_NS, Clock
from oa_base.refusal import Refusal
from oa_platform.auth.revocations import PlaceChange, Revocation, Revocations
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.telemetry.metrics import REGISTRY
from openagents.control.v1 import revocation_service_pb2 as pb
from openagents.control.v1.revocation_service_pb2_grpc import RevocationServiceStub

_CHANGES = {pb.PLACE_CHANGE_LOST: PlaceChange.LOST, pb.PLACE_CHANGE_BACK: PlaceChange.BACK}
_log = structlog.get_logger(__name__)
# Here, so that only services that follow control show them, because an alert looks at all services that do.
REVOCATIONS_HEARD = Gauge(
    "oa_revocations_heard_timestamp_seconds",
    "When control was last heard on its stream of revocations, in seconds since 1970; 0 before the first time.",
    registry=REGISTRY,
)
REVOCATIONS_POSITION = Gauge(
    "oa_revocations_position", "Position of the newest revocation that is known here.", registry=REGISTRY
)


@dataclass(frozen=True, kw_only=True)
class RevocationWatchLimits:
    """How control is followed."""

    silence_s: float = 15.0
    """A stream that says nothing for this long counts as broken. Control gives a sign of life three times as often."""
    ready_without_s: float = 5.0
    """How long a process that starts waits for earlier revocations. After that it works without them."""
    reconnect_first_ms: int = 100
    reconnect_max_ms: int = 2_000
    """Maximum waits before the stream is opened again: at first, and later."""


class RevocationWatch:
    """Passes what control says to `revocations`."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        revocations: Revocations,
        clock: Clock,
        jitter: Callable[[], float],
        limits: RevocationWatchLimits | None = None,
    ) -> None:
        self._stub = RevocationServiceStub(channel)
        self._revocations = revocations
        self._clock = clock
        self._jitter = jitter
        self._limits = limits or RevocationWatchLimits()
        self._backoff = Backoff(self._limits.reconnect_first_ms, self._limits.reconnect_max_ms)
        self._began_s = clock.monotonic()
        REVOCATIONS_HEARD.set(0)

    async def check(self) -> None:
        """Readiness: raises Refusal(unavailable) at first, until earlier revocations are known.

        It does not wait for them forever, because a service works without control.
        """
        known = self._revocations.complete.is_set()
        if not known and self._clock.monotonic() - self._began_s < self._limits.ready_without_s:
            text = "it is not known yet which tokens were revoked; wait until control is reached"
            raise Refusal("unavailable", text)

    async def run(self) -> None:
        """Follow until canceled."""
        attempt = 0
        while True:
            heard = await self._follow()
            attempt = 0 if heard else attempt + 1
            await asyncio.sleep(self._backoff.wait_ms(attempt, self._jitter()) / 1000)

    async def _follow(self) -> bool:
        """Follow one stream until it ends. Returns whether it said anything."""
        request = pb.WatchRevocationsRequest(after_position=self._revocations.position)
        call: Any = self._stub.WatchRevocations(request)
        heard, why = False, "it ended"
        try:
            while True:
                async with asyncio.timeout(self._limits.silence_s):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    break
                self._take(response)
                heard = True
        except TimeoutError:
            why = "it said nothing"
        except grpc.aio.AioRpcError as error:
            why = refusal_from_rpc_error(error).reason
        finally:
            call.cancel()
        _log.warning("revocations_not_followed", reason=why, position=self._revocations.position)
        return heard

    def _take(self, response: pb.WatchRevocationsResponse) -> None:
        known = self._revocations.position
        if response.position < known:
            _log.warning("revocations_went_back", position=response.position, known=known)
        self._revocations.take([_revocation(one) for one in response.revocations], response.position)
        if response.caught_up and not self._revocations.complete.is_set():
            self._revocations.complete.set()
            _log.info("revocations_known", position=response.position)
        REVOCATIONS_HEARD.set(self._clock.time())
        REVOCATIONS_POSITION.set(response.position)


def _revocation(message: pb.Revocation) -> Revocation:
    before = message.issued_before.ToNanoseconds() / SECOND_NS if message.HasField("issued_before") else None
    return Revocation(
        session_id=message.session_id,
        subject=message.subject,
        org_id=message.org_id,
        issued_before_s=before,
        place_change=_CHANGES.get(message.place_change, PlaceChange.NONE),
        position=message.position,
        revoked_s=message.revoke_time.ToNanoseconds() / SECOND_NS,
    )
