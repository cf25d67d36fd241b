"""The catalogue of reasons, read from `openagents.common.v1.Reason` and the options of its values.

A reason is a string: its enum name in lower case without the prefix ("stale_epoch"). How it looks on each transport
and what the client does about it stand in proto/openagents/common/v1/errors.proto, nowhere else.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType

from openagents.common.v1 import errors_pb2

_REASON_PREFIX = "REASON_"
_ACTION_PREFIX = "CLIENT_ACTION_"


class ClientAction(enum.Enum):
    """What a client does about an error; the comments in errors.proto say more."""

    FIX_REQUEST = "fix_request"
    RETRY = "retry"
    REAUTHENTICATE = "reauthenticate"
    REREAD = "reread"
    RESYNC = "resync"
    RECONNECT = "reconnect"
    GIVE_UP = "give_up"
    UPGRADE = "upgrade"
    STOP_WORK = "stop_work"


@dataclass(frozen=True)
class ReasonInfo:
    """One entry of the catalogue.

    `grpc_code` is the canonical name ("FAILED_PRECONDITION"); `close_code` is 0 when the reason never ends a
    WebSocket connection; `number` is the enum's; `retry_after_ms` counts where a refusal doesn't say how long to wait.
    """

    reason: str
    number: int
    http_status: int
    grpc_code: str
    close_code: int
    action: ClientAction
    retry_after_ms: int


def _read_catalogue() -> dict[str, ReasonInfo]:
    entries = {}
    for value in errors_pb2.Reason.DESCRIPTOR.values:
        if value.number == errors_pb2.REASON_UNSPECIFIED:
            continue
        spec = value.GetOptions().Extensions[errors_pb2.spec]
        action = errors_pb2.ClientAction.Name(spec.action).removeprefix(_ACTION_PREFIX).lower()
        reason = value.name.removeprefix(_REASON_PREFIX).lower()
        entries[reason] = ReasonInfo(
            reason=reason,
            number=value.number,
            http_status=spec.http_status,
            grpc_code=spec.grpc_code,
            close_code=spec.close_code,
            action=ClientAction(action),
            retry_after_ms=spec.retry_after_ms,
        )
    return entries


_CATALOGUE = MappingProxyType(_read_catalogue())


def reason_info(reason: str) -> ReasonInfo:
    """The catalogue's entry of `reason`; raises ValueError for a string that is no reason (a defect of the caller)."""
    try:
        return _CATALOGUE[reason]
    except KeyError:
        raise ValueError(f"{reason!r} is not a reason of openagents.common.v1.Reason") from None


def is_reason(reason: str) -> bool:
    """Whether the catalogue has `reason`: for strings that came over a wire."""
    return reason in _CATALOGUE


def all_reasons() -> tuple[ReasonInfo, ...]:
    """The whole catalogue in the order of errors.proto."""
    return tuple(_CATALOGUE.values())
