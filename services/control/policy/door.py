"""PolicyService: the gate's decisions, for services and operators on the internal port."""

from __future__ import annotations

from typing import Any

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import policy_service_pb2 as pb
from openagents.control.v1.policy_service_pb2_grpc import PolicyServiceServicer
from services.control.policy.app import Gate
from services.control.policy.domain import (
    Access,
    AnyPrincipal,
    OrgOwned,
    Resource,
    Rule,
    Scope,
    Scoped,
    SessionOnly,
    StandingPrincipal,
    UserOwned,
    known_scopes,
)

_RULES = {rule: pb.PolicyRule.Value(f"POLICY_RULE_{rule.value.upper()}") for rule in Rule}
_KINDS = {principal_pb2.PrincipalKind.Value(f"PRINCIPAL_KIND_{kind.value.upper()}"): kind for kind in PrincipalKind}


class PolicyApi(PolicyServiceServicer):
    """The method of PolicyService."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        """Decide whether a principal may do something."""
        decision = await self._gate.decide(_principal(request.principal), _access(request), _resource(request))
        denied = decision.denied
        return pb.AuthorizeResponse(
            allowed=denied is None,
            reason=denied.reason if denied else "",
            message=denied.message if denied else "",
            rule=_RULES[denied.rule] if denied else pb.POLICY_RULE_UNSPECIFIED,
            scopes=sorted(decision.scopes),
        )


def _principal(given: principal_pb2.Principal) -> StandingPrincipal:
    kind = _KINDS.get(given.kind)
    if kind is None:
        message = "the principal has no kind that there is; say whether it is a person or a service account"
        raise Refusal("invalid_enum", message, field="principal.kind")
    return StandingPrincipal(
        kind=kind,
        subject=given.subject,
        org_id=given.org_id,
        scopes=known_scopes(frozenset(given.scopes)),
        session_id=given.session_id,
        device_id=given.device_id,
    )


def _access(request: pb.AuthorizeRequest) -> Access:
    scope = request.required_scope
    if scope and request.session_only:
        message = "an action needs a scope, or a session; ask for one of them"
        raise Refusal("invalid_value", message, field="session_only")
    if scope and scope not in set(Scope):
        message = "there is no such scope; docs/operations/policy.md has all of them"
        raise Refusal("invalid_value", message, field="required_scope")
    if request.session_only:
        return SessionOnly(request.fresh_sign_in)
    if request.fresh_sign_in and not scope:
        message = "a fresh sign-in is asked for with a scope, or with session_only; give one of them"
        raise Refusal("invalid_value", message, field="fresh_sign_in")
    return Scoped(Scope(scope), request.fresh_sign_in) if scope else AnyPrincipal()


def _resource(request: pb.AuthorizeRequest) -> Resource | None:
    if request.owner_user_id and request.owner_org_id:
        message = "a thing belongs to a person, or to an org; give one owner"
        raise Refusal("invalid_value", message, field="owner_org_id")
    if request.owner_org_id:
        return OrgOwned(request.owner_org_id)
    return UserOwned(request.owner_user_id) if request.owner_user_id else None
