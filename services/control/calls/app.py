"""Calls and their handlers, over either transport: gRPC and the HTTP edge share the same handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from services.control.audit.domain import Origin
from services.control.policy.domain import StandingPrincipal

PACKAGE = "openagents.control.v1"


@dataclass(frozen=True, slots=True)
class Call:
    """The caller (None on public methods) and the origin of a call."""

    principal: StandingPrincipal | None
    origin: Origin

    @property
    def caller(self) -> StandingPrincipal:
        """The principal of a method that isn't public."""
        if self.principal is None:
            raise Refusal("missing_authorization", "this call needs an access token; sign in")
        return self.principal


Handler = Callable[[Any, Call], Awaitable[Message]]
"""Handles a valid request of its method."""
Handlers = Mapping[str, Handler]
"""Method ("package.Service/Method") -> handler."""


def handlers_of(service: str, *handlers: Handler) -> Handlers:
    """The handlers of one of control's services. Each has the name of its method."""
    return {f"{PACKAGE}.{service}/{handler.__name__}": handler for handler in handlers}


def timestamp(moment: datetime) -> Timestamp:
    """The moment in the form that messages have, to the microsecond."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made
