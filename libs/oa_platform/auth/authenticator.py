"""Who may call which method, read from the contracts, and who calls, read from the call's metadata.

| method                                      | needs                                                          |
|---------------------------------------------|----------------------------------------------------------------|
| grpc.health.v1.Health                       | nothing                                                        |
| with `required_scope` or `any_principal`    | service token of control, and a principal token for this service |
| of openagents.runtime.v1.WorkerService      | a worker token as bearer                                       |
| every other, reflection and unknown ones too | a service token                                               |
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pool

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token
from oa_platform.auth.identity import Caller, PersonCaller, ServiceCaller, WorkerCaller, require_scope
from oa_platform.auth.tokens import TokenVerifier
from openagents.common.v1 import options_pb2, principal_pb2
from openagents.control.v1 import claims_pb2

SERVICE_TOKEN_KEY = "x-oa-service-token"
PRINCIPAL_KEY = "x-oa-principal"
AUTHORIZATION_KEY = "authorization"
PRINCIPAL_FORWARDER = "control"
"""The only service whose word about a principal counts."""
OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
WORKER_SERVICES = frozenset({"openagents.runtime.v1.WorkerService"})
WORKER_SCOPE = "workers.attach"

_KINDS = {
    principal_pb2.PRINCIPAL_KIND_USER: PrincipalKind.USER,
    principal_pb2.PRINCIPAL_KIND_SERVICE_ACCOUNT: PrincipalKind.SERVICE_ACCOUNT,
    principal_pb2.PRINCIPAL_KIND_WORKER: PrincipalKind.WORKER,
}


class Need(enum.Enum):
    """The kind of identity that a method needs."""

    NOTHING = "nothing"
    SERVICE = "service"
    PRINCIPAL = "principal"
    WORKER = "worker"


@dataclass(frozen=True)
class MethodPolicy:
    """What a method needs; `scope` is empty when any principal may call it."""

    need: Need
    scope: str = ""


def policy_of(method: str) -> MethodPolicy:
    """The policy of a method by its full name, "/openagents.runtime.v1.RunService/GetRun"."""
    service, _, name = method.removeprefix("/").partition("/")
    if service in OPEN_SERVICES:
        return MethodPolicy(Need.NOTHING)
    if service in WORKER_SERVICES:
        return MethodPolicy(Need.WORKER)
    try:
        options = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").GetOptions()
    except KeyError:
        return MethodPolicy(Need.SERVICE)
    scope = options.Extensions[options_pb2.required_scope]
    if scope or options.Extensions[options_pb2.any_principal]:
        return MethodPolicy(Need.PRINCIPAL, scope)
    return MethodPolicy(Need.SERVICE)


def principal_of(
    claims: claims_pb2.AccessTokenClaims | claims_pb2.PrincipalClaims | claims_pb2.WorkerTokenClaims,
) -> Principal:
    """The principal that verified claims speak of; raises Refusal(invalid_token) when they lack kind or org."""
    kind = _KINDS.get(claims.kind)
    if kind is None or not claims.org_id:
        raise Refusal("invalid_token", "the token lacks the kind of its principal, or the org; get a new one")
    worker = isinstance(claims, claims_pb2.WorkerTokenClaims)
    if worker != (kind is PrincipalKind.WORKER):
        raise Refusal("invalid_token", f"the principal of this token may not be a {kind.value}")
    return Principal(
        kind=kind,
        subject=claims.sub,
        org_id=claims.org_id,
        scopes=frozenset(claims.scopes),
        session_id="" if isinstance(claims, claims_pb2.WorkerTokenClaims) else claims.session_id,
        device_id="" if isinstance(claims, claims_pb2.WorkerTokenClaims) else claims.device_id,
    )


class Authenticator:
    """Tells who calls the service `audience`.

    `accepted_services` is service name -> SHA-256 hex of its token. Without a `verifier` no method that needs a
    principal or a worker can be called.
    """

    def __init__(self, audience: str, accepted_services: Mapping[str, str], verifier: TokenVerifier | None) -> None:
        self._audience = audience
        self._accepted = dict(accepted_services)
        self._verifier = verifier

    async def authenticate(self, policy: MethodPolicy, metadata: Mapping[str, str]) -> Caller | None:
        """The caller, as the policy demands one; None when it demands none. Raises Refusal."""
        if policy.need is Need.NOTHING:
            return None
        if policy.need is Need.WORKER:
            return await self._worker(metadata)
        service = self._service(metadata.get(SERVICE_TOKEN_KEY, ""))
        if policy.need is Need.SERVICE:
            return service
        return await self._person(policy, service, metadata.get(PRINCIPAL_KEY, ""))

    def _service(self, token: str) -> ServiceCaller:
        if not token:
            raise Refusal("service_not_accepted", "the call carries no service token; send your own")
        digest = hashlib.sha256(token.encode()).hexdigest()
        # All are compared, so that the time says nothing about which came near.
        matches = [name for name, accepted in self._accepted.items() if hmac.compare_digest(digest, accepted)]
        if not matches:
            raise Refusal(
                "service_not_accepted",
                "the service token is not accepted here; see OA_ACCEPTED_SERVICES",
            )
        return ServiceCaller(matches[0])

    async def _person(self, policy: MethodPolicy, service: ServiceCaller, token: str) -> PersonCaller:
        if service.name != PRINCIPAL_FORWARDER:
            raise Refusal("service_not_accepted", f"only {PRINCIPAL_FORWARDER} may call this on behalf of somebody")
        if not token:
            raise Refusal("missing_authorization", "the call is made on nobody's behalf; send a principal token")
        claims = await self._tokens().verify(token, claims_pb2.PrincipalClaims, audience=self._audience)
        principal = principal_of(claims)
        if policy.scope:
            require_scope(principal, policy.scope)
        return PersonCaller(principal, service.name)

    async def _worker(self, metadata: Mapping[str, str]) -> WorkerCaller:
        token = bearer_token(metadata.get(AUTHORIZATION_KEY))
        claims = await self._tokens().verify(token, claims_pb2.WorkerTokenClaims, audience=self._audience)
        principal = principal_of(claims)
        require_scope(principal, WORKER_SCOPE)
        return WorkerCaller(principal)

    def _tokens(self) -> TokenVerifier:
        if self._verifier is None:
            raise Refusal("invalid_token", "this service takes no tokens of people or workers")
        return self._verifier
