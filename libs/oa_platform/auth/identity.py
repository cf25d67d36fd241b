"""The kinds of callers of a service, and the caller of the current call."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass

from oa_base.identity import Principal, TokenHolder
from oa_base.refusal import Refusal
from oa_platform.tasks.fair_slots import works_for


@dataclass(frozen=True)
class ServiceCaller:
    """One of our services, calling for itself."""

    name: str


@dataclass(frozen=True)
class PersonCaller:
    """A person or a service account, calling through the service `via`."""

    principal: Principal
    via: str


@dataclass(frozen=True)
class WorkerCaller:
    """A worker process with its own token, which is valid for `holds_for_s` after it was checked."""

    principal: Principal
    holds_for_s: float = math.inf
    issued_s: float = 0.0
    """When its token was issued, in seconds since 1970."""

    @property
    def holder(self) -> TokenHolder:
        """The holder of its token."""
        return TokenHolder(self.principal.subject, self.principal.org_id, self.principal.session_id, self.issued_s)


Caller = ServiceCaller | PersonCaller | WorkerCaller

_caller: ContextVar[Caller | None] = ContextVar("oa_caller", default=None)


def set_caller(caller: Caller | None) -> None:
    """Set the caller of the current call: for the doors (gRPC, HTTP), and for tests."""
    _caller.set(caller)
    if caller is not None:
        works_for(caller.name if isinstance(caller, ServiceCaller) else caller.principal.org_id)


def current_caller() -> Caller:
    """The caller of the current call; raises LookupError outside of one (a defect)."""
    caller = _caller.get()
    if caller is None:
        raise LookupError("there is no current call, or its method needs no identity")
    return caller


def current_principal() -> Principal:
    """The principal for whom the current call is made; LookupError when a service calls for itself (a defect)."""
    caller = current_caller()
    if isinstance(caller, ServiceCaller):
        raise LookupError(f"the service {caller.name} calls for itself: there is no principal")
    return caller.principal


def require_scope(principal: Principal, scope: str) -> None:
    """Raise Refusal(missing_scope) unless the principal's token carries `scope`."""
    if scope not in principal.scopes:
        raise Refusal("missing_scope", f"this needs the scope {scope}; get a token with it", metadata={"scope": scope})
