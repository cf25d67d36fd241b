"""The services behind control, called for a principal."""

from __future__ import annotations

from collections.abc import Mapping

import grpc.aio
import structlog

from oa_base.clock import Clock
from oa_base.identity import RUNTIME_AUDIENCE
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY
from oa_platform.health.failures import RETRY_AFTER_MS, refusal_from_rpc_error
from oa_wire.status import STATUS_METADATA_KEY
from openagents.runtime.v1 import run_service_pb2
from services.control.app.ports import Entropy, TokenSigner
from services.control.domain.audit import Origin
from services.control.domain.claims import principal_claims
from services.control.domain.principal import StandingPrincipal

GET_RUN = "openagents.runtime.v1.RunService/GetRun"
OWNERSHIP_TIMEOUT_S = 5.0
"""Longest question to runtime about who owns a run."""
_NOT_FOR_CALLER = frozenset({"not_found", "owner_mismatch"})
_TRANSPORT_REASONS = frozenset({"unavailable", "deadline_exceeded", "request_too_large", "overloaded", "cancelled"})
_log = structlog.get_logger(__name__)


class Upstreams:
    """Calls the other services with serialized messages, which it never opens.

    `channels` is audience ("runtime", "projector") -> channel. The channels add control's service token, the request
    id and the trace; this adds a principal token of 60 s.
    """

    def __init__(
        self, channels: Mapping[str, grpc.aio.Channel], signer: TokenSigner, clock: Clock, entropy: Entropy
    ) -> None:
        self._channels = channels
        self._signer = signer
        self._clock = clock
        self._entropy = entropy

    async def forward(
        self, audience: str, method: str, body: bytes, principal: StandingPrincipal, timeout_s: float
    ) -> bytes:
        """The serialized answer. Raises Refusal: the service's own reason, or `unavailable` when it isn't there."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[audience].unary_unary(f"/{method}")
        metadata = ((PRINCIPAL_KEY, self._principal_token(principal, audience)),)
        try:
            return await call(body, timeout=max(timeout_s, 0.001), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error, audience, method) from None

    async def org_of_run(self, principal: StandingPrincipal, run_id: str, origin: Origin) -> str | None:
        """See `app.ports.RunOwnership`."""
        request = run_service_pb2.GetRunRequest(run_id=run_id).SerializeToString()
        try:
            answer = await self.forward(RUNTIME_AUDIENCE, GET_RUN, request, principal, OWNERSHIP_TIMEOUT_S)
        except Refusal as refusal:
            if refusal.reason in _NOT_FOR_CALLER:
                return None
            raise
        return run_service_pb2.GetRunResponse.FromString(answer).run.org_id or None

    def _principal_token(self, principal: StandingPrincipal, audience: str) -> str:
        jti = self._entropy.new_id("tok")
        return self._signer.sign(principal_claims(principal, audience, jti, self._clock.now()))


def _refusal(error: grpc.aio.AioRpcError, service: str, method: str) -> Refusal:
    refusal = refusal_from_rpc_error(error)
    if any(key == STATUS_METADATA_KEY for key, _ in error.trailing_metadata() or ()):
        if refusal.info.grpc_code != "UNAUTHENTICATED":
            return refusal
        # It is our own tokens that were refused; the caller's was good, and a new one wouldn't help.
        _log.error("upstream_refused_control", service_called=service, method=method, reason=refusal.reason)
        return _away(service)
    # Made by the transport: its text names addresses, which are nobody's business outside.
    _log.warning("upstream_failed", service_called=service, method=method, code=error.code().name)
    if refusal.reason == "unavailable" or refusal.reason not in _TRANSPORT_REASONS:
        return _away(service)
    return Refusal(refusal.reason, f"The call to {service} ended with {error.code().name}.")


def _away(service: str) -> Refusal:
    message = f"The service {service} can't be reached now; try again in a moment."
    return Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS)
