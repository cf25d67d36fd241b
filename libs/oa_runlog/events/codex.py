"""The reports of a Codex worker."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from oa_runlog.events.json_values import JsonObject


class TurnStatus(enum.StrEnum):
    """Where a turn stands."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class ControlOutcome(enum.StrEnum):
    """Terminal state of a control request."""

    APPLIED = "applied"
    DECLINED = "declined"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class TurnStatusChanged:
    """A turn began or ended."""

    turn_id: str
    status: TurnStatus
    message: str = ""


@dataclass(frozen=True, slots=True)
class CodexItem:
    """An item of a turn, as the app-server sent it."""

    item_type: str
    turn_id: str = ""
    item_id: str = ""
    content: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """The app-server asks for a decision."""

    request_id: str
    action: str
    detail: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ControlReceipt:
    """How a control request ended."""

    request_id: str
    outcome: ControlOutcome
    message: str = ""


CodexKind = TurnStatusChanged | CodexItem | ControlRequest | ControlReceipt
"""The subject of a report."""


@dataclass(frozen=True, slots=True)
class CodexEvent:
    """One report of a Codex worker."""

    kind: CodexKind
    codex_thread_id: str = ""
