"""The gRPC door: the same handlers as behind the edge, for our services that call control internally."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

from oa_base.identity import Principal
from oa_platform.auth.identity import PersonCaller, current_caller
from oa_platform.rpc.server import GrpcServer
from oa_platform.telemetry.context import current_request_id
from openagents.control.v1 import (
    api_key_service_pb2_grpc,
    audit_service_pb2_grpc,
    auth_service_pb2_grpc,
    invitation_service_pb2_grpc,
    member_service_pb2_grpc,
    org_service_pb2_grpc,
    provider_sign_in_service_pb2_grpc,
    service_account_service_pb2_grpc,
    session_service_pb2_grpc,
    sync_token_service_pb2_grpc,
)
from services.control.audit.domain import Origin
from services.control.calls.app import PACKAGE, Call, Handler, Handlers
from services.control.policy.app import Gate
from services.control.policy.domain import Denied, StandingPrincipal, known_scopes

_ADDERS: Mapping[str, Callable[..., None]] = {
    "ApiKeyService": api_key_service_pb2_grpc.add_ApiKeyServiceServicer_to_server,
    "AuditService": audit_service_pb2_grpc.add_AuditServiceServicer_to_server,
    "AuthService": auth_service_pb2_grpc.add_AuthServiceServicer_to_server,
    "InvitationService": invitation_service_pb2_grpc.add_InvitationServiceServicer_to_server,
    "MemberService": member_service_pb2_grpc.add_MemberServiceServicer_to_server,
    "OrgService": org_service_pb2_grpc.add_OrgServiceServicer_to_server,
    "ProviderSignInService": provider_sign_in_service_pb2_grpc.add_ProviderSignInServiceServicer_to_server,
    "ServiceAccountService": service_account_service_pb2_grpc.add_ServiceAccountServiceServicer_to_server,
    "SessionService": session_service_pb2_grpc.add_SessionServiceServicer_to_server,
    "SyncTokenService": sync_token_service_pb2_grpc.add_SyncTokenServiceServicer_to_server,
}


def register_all(server: GrpcServer, handlers: Handlers, gate: Gate) -> None:
    """Serve every handler. The server checks the caller's identity before a handler runs."""
    for service, add in _ADDERS.items():
        methods = {
            name.rpartition("/")[2]: _method(name, handler, gate)
            for name, handler in handlers.items()
            if name.startswith(f"{PACKAGE}.{service}/")
        }
        server.register(add, SimpleNamespace(**methods))


def _method(name: str, handler: Handler, gate: Gate) -> Callable[[Any, Any], Awaitable[Message]]:
    async def call(request: Any, _context: Any) -> Message:
        caller = current_caller()
        if isinstance(caller, PersonCaller):
            principal = await gate.standing_now(_principal(caller.principal))
            origin = Origin(current_request_id(), f"service:{caller.via}")
            try:
                return await handler(request, Call(principal, origin))
            except Denied as denied:
                await gate.record_denied(principal, name, origin, denied.reason, denied.org_id)
                raise
        # Methods that are public at the edge need a service as the caller here, but no principal.
        return await handler(request, Call(None, Origin(current_request_id(), "service")))

    return call


def _principal(calling: Principal) -> StandingPrincipal:
    return StandingPrincipal(
        kind=calling.kind,
        subject=calling.subject,
        org_id=calling.org_id,
        scopes=known_scopes(calling.scopes),
        session_id=calling.session_id,
        device_id=calling.device_id,
    )
