"""SyncTokenService, and asking runtime who owns a run."""

from __future__ import annotations

from google.protobuf.message import Message

from oa_base.catalogue import reason_info
from oa_base.identity import RUNTIME_AUDIENCE
from oa_base.refusal import Refusal
from openagents.common.v1 import errors_pb2, surfaces_pb2
from openagents.control.v1 import sync_token_service_pb2 as sync_pb2
from openagents.runtime.v1 import run_service_pb2
from services.control.calls.app import Call, Handlers, handlers_of, timestamp
from services.control.policy.domain import StandingPrincipal
from services.control.sync_tokens.app import SyncTokens
from services.control.sync_tokens.domain import Grant, Surface, surface_of
from services.control.sync_tokens.limits import OWNERSHIP_TIMEOUT_S
from services.control.upstreams.app import Upstreams

GET_RUN = "openagents.runtime.v1.RunService/GetRun"
_NOT_FOR_CALLER = frozenset({"not_found", "owner_mismatch"})


class SyncTokenApi:
    """The methods of SyncTokenService. `khala_url` is where clients open the WebSocket."""

    def __init__(self, sync_tokens: SyncTokens, khala_url: str) -> None:
        """Raises ValueError when the contract's surfaces differ from those known here: control had better not start
        than have a surface that nobody decides about."""
        if contract_surfaces() != set(Surface):
            raise ValueError("control and openagents.common.v1.Surface don't have the same surfaces")
        self._sync_tokens = sync_tokens
        self._khala_url = khala_url

    def handlers(self) -> Handlers:
        """Return one handler per method."""
        return handlers_of("SyncTokenService", self.MintSyncToken)

    async def MintSyncToken(self, request: sync_pb2.MintSyncTokenRequest, call: Call) -> Message:
        """Mint a token for the topics that are granted."""
        minted = await self._sync_tokens.mint(
            call.caller, list(request.topics), request.ttl_seconds, surface_of(request.surface), call.origin
        )
        return sync_pb2.MintSyncTokenResponse(
            token=minted.token,
            expire_time=timestamp(minted.expires_at),
            grants=[_grant(grant) for grant in minted.grants],
            khala_url=self._khala_url,
        )


def contract_surfaces() -> frozenset[str]:
    """The registry of surfaces, as the contract has it."""
    values = surfaces_pb2.Surface.DESCRIPTOR.values
    return frozenset(value.GetOptions().Extensions[surfaces_pb2.surface_text] for value in values)


def _grant(grant: Grant) -> sync_pb2.TopicGrant:
    number = reason_info(grant.reason).number if grant.reason else errors_pb2.REASON_UNSPECIFIED
    reason = errors_pb2.Reason.ValueType(number)
    return sync_pb2.TopicGrant(topic=grant.topic, granted=grant.reason is None, reason=reason)


class RuntimeOwnership:
    """See `app.RunOwnership`."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def org_of_run(self, principal: StandingPrincipal, run_id: str) -> str | None:
        """Return the org that owns the run; None when there is no such run for `principal`."""
        request = run_service_pb2.GetRunRequest(run_id=run_id).SerializeToString()
        try:
            answer = await self._upstreams.forward(RUNTIME_AUDIENCE, GET_RUN, request, principal, OWNERSHIP_TIMEOUT_S)
        except Refusal as refusal:
            if refusal.reason in _NOT_FOR_CALLER:
                return None
            raise
        return run_service_pb2.GetRunResponse.FromString(answer).run.org_id or None
