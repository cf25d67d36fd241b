"""Reads who may call a method from the contracts, and who calls it from the call.

| method                                    | needs                                                            |
|-------------------------------------------|------------------------------------------------------------------|
| grpc.health.v1.Health                     | nothing                                                          |
| `required_scope`, `any_principal`, `session_only` | control as the caller, and a principal token for this service    |
| with `worker_token`                       | a worker token as bearer                                         |
| with `callers`                            | one of these services as the caller                              |
| `public`, reflection, unknown methods     | any accepted service as the caller                               |
| our methods without any option            | closed to every caller                                           |

A service is identified by its certificate if `OA_ACCEPTED_CERTIFICATES` names it, otherwise by its service token.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf import descriptor_pool

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.bearer import bearer_token
from oa_platform.auth.identity import Caller, PersonCaller, ServiceCaller, WorkerCaller, require_scope
from oa_platform.auth.tokens import TokenVerifier, issued_s
from openagents.common.v1 import options_pb2, principal_pb2
from openagents.control.v1 import claims_pb2

SERVICE_TOKEN_KEY = "x-oa-service-token"
PRINCIPAL_KEY = "x-oa-principal"
AUTHORIZATION_KEY = "authorization"
PRINCIPAL_FORWARDER = "control"
"""The only service that may call on behalf of a principal."""
OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
INFRASTRUCTURE = frozenset({"grpc.reflection.v1alpha.ServerReflection"})
"""Services that are not in our contracts, and that any accepted service may call."""
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
    """The needs of a method; `scope` is empty when any principal may call it, `callers` None when any service may."""

    need: Need
    scope: str = ""
    callers: frozenset[str] | None = None
    method: str = ""
    """The name of the method, if a refusal has to name it."""


def policy_of(method: str) -> MethodPolicy:
    """The policy of a method by its full name, "/openagents.runtime.v1.RunService/GetRun"."""
    service, _, name = method.removeprefix("/").partition("/")
    if service in OPEN_SERVICES:
        return MethodPolicy(Need.NOTHING)
    try:
        options = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").GetOptions().Extensions
    except KeyError:
        return MethodPolicy(Need.SERVICE)
    if options[options_pb2.worker_token]:
        return MethodPolicy(Need.WORKER)
    scope = options[options_pb2.required_scope]
    if scope or options[options_pb2.any_principal] or options[options_pb2.session_only]:
        return MethodPolicy(Need.PRINCIPAL, scope)
    if options[options_pb2.public] or service in INFRASTRUCTURE:
        return MethodPolicy(Need.SERVICE)
    return MethodPolicy(Need.SERVICE, callers=frozenset(options[options_pb2.callers]), method=f"{service}/{name}")


def principal_of(
    claims: claims_pb2.AccessTokenClaims | claims_pb2.PrincipalClaims | claims_pb2.WorkerTokenClaims,
) -> Principal:
    """The principal that verified claims identify; raises Refusal `invalid_token` if they
    lack kind or org, or if the kind is not one that such a token has."""
    kind = _KINDS.get(claims.kind)
    if kind is None or not claims.org_id:
        raise Refusal("invalid_token", "the token lacks the kind of its principal, or the org; get a new one")
    worker = isinstance(claims, claims_pb2.WorkerTokenClaims)
    if worker != (kind is PrincipalKind.WORKER):
        message = f"the principal of this token may not be a {kind.value}; get a token of the right kind"
        raise Refusal("invalid_token", message)
    return Principal(
        kind=kind,
        subject=claims.sub,
        org_id=claims.org_id,
        scopes=frozenset(claims.scopes),
        session_id=claims.session_id,
        device_id="" if isinstance(claims, claims_pb2.WorkerTokenClaims) else claims.device_id,
    )


class Authenticator:
    """Identifies the callers of the service `audience`.

    `accepted_services` maps the SHA-256 hex of a token to the name of a service, `accepted_certificates` the name of a
    certificate. Without a `verifier`, no method that needs a principal or a worker can be called.
    """

    def __init__(
        self,
        audience: str,
        accepted_services: Mapping[str, str],
        verifier: TokenVerifier | None,
        accepted_certificates: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._audience = audience
        self._accepted = dict(accepted_services)
        self._accepted_certificates = dict(accepted_certificates)
        self._verifier = verifier

    async def authenticate(
        self, policy: MethodPolicy, metadata: Mapping[str, str], certificate_names: Collection[str] = ()
    ) -> Caller | None:
        """The caller that the policy demands; None when it demands none. Raises Refusal.

        `certificate_names` are those of the certificate that the connection was made with.
        """
        if policy.need is Need.NOTHING:
            return None
        if policy.need is Need.WORKER:
            return await self.worker(bearer_token(metadata.get(AUTHORIZATION_KEY)))
        service = self._service(metadata.get(SERVICE_TOKEN_KEY, ""), certificate_names)
        if policy.need is Need.SERVICE:
            _check_caller(policy, service)
            return service
        return await self._person(policy, service, metadata.get(PRINCIPAL_KEY, ""))

    def _service(self, token: str, certificate_names: Collection[str]) -> ServiceCaller:
        certified = {
            self._accepted_certificates[name] for name in certificate_names if name in self._accepted_certificates
        }
        if len(certified) == 1:
            return ServiceCaller(certified.pop())
        if certified:
            message = f"the certificate names several services ({', '.join(sorted(certified))}); give each its own"
            raise Refusal("service_not_accepted", message)
        if not token:
            message = "the call carries no service token, and no certificate that is accepted here; send one of them"
            raise Refusal("service_not_accepted", message)
        digest = hashlib.sha256(token.encode()).hexdigest()
        # All are compared, so that the time doesn't tell which one nearly matched.
        matches = [name for accepted, name in self._accepted.items() if hmac.compare_digest(digest, accepted)]
        if not matches:
            message = "the service token is not accepted here; see OA_ACCEPTED_SERVICES and OA_ACCEPTED_CERTIFICATES"
            raise Refusal("service_not_accepted", message)
        return ServiceCaller(matches[0])

    async def _person(self, policy: MethodPolicy, service: ServiceCaller, token: str) -> PersonCaller:
        if service.name != PRINCIPAL_FORWARDER:
            message = f"only {PRINCIPAL_FORWARDER} may call this on behalf of somebody; send the call there"
            raise Refusal("service_not_accepted", message)
        if not token:
            raise Refusal("missing_authorization", "the call is made on nobody's behalf; send a principal token")
        claims = await self._tokens().verify(token, claims_pb2.PrincipalClaims, audience=self._audience)
        principal = principal_of(claims)
        if policy.scope:
            require_scope(principal, policy.scope)
        return PersonCaller(principal, service.name)

    async def worker(self, token: str) -> WorkerCaller:
        """The caller that a worker's token identifies. Raises Refusal."""
        claims = await self._tokens().verify(token, claims_pb2.WorkerTokenClaims, audience=self._audience)
        principal = principal_of(claims)
        require_scope(principal, WORKER_SCOPE)
        return WorkerCaller(principal, self._tokens().left_s(claims.exp), issued_s(claims))

    def _tokens(self) -> TokenVerifier:
        if self._verifier is None:
            raise Refusal("invalid_token", "this service takes no tokens of people or workers; send that of a service")
        return self._verifier


def _check_caller(policy: MethodPolicy, service: ServiceCaller) -> None:
    if policy.callers is None or service.name in policy.callers:
        return
    callers = ", ".join(sorted(policy.callers))
    who = f"only {callers} may" if callers else "nobody may"
    raise Refusal(
        "caller_not_allowed",
        f"{service.name} may not call {policy.method}; {who}",
        metadata={"method": policy.method, "callers": callers},
    )
