"""Who calls: plain values, and the one of the current call. Pure, so that every room may import it."""

from __future__ import annotations

import enum
from contextvars import ContextVar
from dataclasses import dataclass

from oa_errors import Refusal


class PrincipalKind(enum.Enum):
    """Kind of a principal, as in openagents.common.v1.PrincipalKind."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    WORKER = "worker"


@dataclass(frozen=True)
class Principal:
    """On whose behalf a call is made. It comes from a verified token, never from a body.

    `subject` is `usr_…` or `sva_…`; `session_id` and `device_id` are empty for service accounts and workers.
    """

    kind: PrincipalKind
    subject: str
    org_id: str
    scopes: frozenset[str] = frozenset()
    session_id: str = ""
    device_id: str = ""

    def require_scope(self, scope: str) -> None:
        """Raise Refusal(missing_scope) unless the principal holds `scope`."""
        if scope not in self.scopes:
            raise Refusal(
                "missing_scope", f"this needs the scope {scope}; get a token with it", metadata={"scope": scope}
            )


@dataclass(frozen=True)
class ServiceCaller:
    """One of our services, for itself."""

    name: str


@dataclass(frozen=True)
class PersonCaller:
    """A person or a service account, through the service `via`."""

    principal: Principal
    via: str


@dataclass(frozen=True)
class WorkerCaller:
    """A worker process with its own token."""

    principal: Principal


Caller = ServiceCaller | PersonCaller | WorkerCaller

_caller: ContextVar[Caller | None] = ContextVar("oa_caller", default=None)


def set_caller(caller: Caller | None) -> None:
    """Set the caller of the current call: for the doors (gRPC, HTTP), and for tests."""
    _caller.set(caller)


def current_caller() -> Caller:
    """The caller of the current call; raises LookupError outside of one (a defect)."""
    caller = _caller.get()
    if caller is None:
        raise LookupError("there is no current call, or its method needs no identity")
    return caller


def current_principal() -> Principal:
    """On whose behalf the current call is made; LookupError when a service calls for itself (a defect)."""
    caller = current_caller()
    if isinstance(caller, ServiceCaller):
        raise LookupError(f"the service {caller.name} calls for itself: there is no principal")
    return caller.principal
