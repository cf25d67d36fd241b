"""The services behind control, called for a principal."""

from __future__ import annotations

from collections.abc import Mapping

import grpc.aio
import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY
from oa_platform.health.failures import (
    refusal_for_outsiders,
    refusal_from_rpc_error,
    said_by_service,
    service_away,
)
from services.control.policy.domain import StandingPrincipal
from services.control.tokens.app import TokenIssuer

_log = structlog.get_logger(__name__)


class GrpcUpstreams:
    """See `app.Upstreams`. Messages stay serialized: they are never opened here.

    `channels` is audience -> channel. The channels add control's service token, the request id and the trace; this
    adds a principal token of 60 s.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], issuer: TokenIssuer, clock: Clock) -> None:
        self._channels = channels
        self._methods: dict[tuple[str, str], grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._issuer = issuer
        self._clock = clock

    async def forward(
        self, audience: str, method: str, body: bytes, principal: StandingPrincipal, timeout_s: float
    ) -> bytes:
        """The serialized answer. Raises Refusal: the service's own reason, or `unavailable` when it isn't there."""
        ends_s = self._clock.monotonic() + timeout_s
        try:
            return await self._call(audience, method, body, principal, timeout_s)
        except grpc.aio.AioRpcError as error:
            if not _is_revoked(error):
                raise _refusal(error, audience, method) from None
        # The token may be from before the principal was found to stand: that of a member who left and came back. The
        # next one has the time at which the principal stood, and is refused if that has ended since. Nothing was done,
        # because the service checks the token first.
        self._issuer.forget_upstream(principal, audience)
        try:
            return await self._call(audience, method, body, principal, ends_s - self._clock.monotonic())
        except grpc.aio.AioRpcError as error:
            raise _refusal(error, audience, method) from None

    async def _call(
        self, audience: str, method: str, body: bytes, principal: StandingPrincipal, timeout_s: float
    ) -> bytes:
        call = self._methods.get((audience, method))
        if call is None:
            # Only the contract's open methods come here, and they are few.
            call = self._methods[audience, method] = self._channels[audience].unary_unary(f"/{method}")
        issued = self._issuer.for_upstream(principal, audience, self._clock.now())
        return await call(body, timeout=max(timeout_s, 0.001), metadata=((PRINCIPAL_KEY, issued.token),))


def _is_revoked(error: grpc.aio.AioRpcError) -> bool:
    return said_by_service(error) and refusal_from_rpc_error(error).reason == "token_revoked"


def _refusal(error: grpc.aio.AioRpcError, service: str, method: str) -> Refusal:
    refusal = refusal_for_outsiders(error, service)
    if not said_by_service(error):
        code, detail = error.code().name, error.details()
        _log.warning("upstream_failed", service_called=service, method=method, code=code, detail=detail)
    elif refusal.info.grpc_code == "UNAUTHENTICATED":
        # The service refused our own tokens; the caller's was good, and a new one wouldn't help.
        _log.error("upstream_refused_control", service_called=service, method=method, reason=refusal.reason)
        return service_away(service)
    return refusal
