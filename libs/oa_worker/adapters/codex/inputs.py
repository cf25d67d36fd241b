"""The input and the result of a run of the adapter `codex`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

Sandbox = Literal["read-only", "workspace-write", "danger-full-access"]
"""What commands may do without an approval, from least to most."""
Approval = Literal["untrusted", "on-request", "never"]
"""When people are asked: before every command that is not known to be harmless; when Codex finds that it needs more
than the sandbox allows; or never, so that everything that would need an approval fails."""
SANDBOXES: tuple[Sandbox, ...] = get_args(Sandbox)
"""From least to most."""
APPROVALS: tuple[Approval, ...] = get_args(Approval)
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
"""Maximum of a turn's times."""


@dataclass
class CodexTurn:
    """One turn of a Codex thread."""

    prompt: Annotated[str, Field(min_length=1, max_length=262_144)]
    """What Codex is asked to do."""
    working_directory: Annotated[str, Field(max_length=4096)] = ""
    """Folder on the worker's machine; empty for the worker's own."""
    sandbox: Sandbox = "read-only"
    approval: Approval = "untrusted"
    model: Annotated[str, Field(max_length=128)] = ""
    """Model; empty for the one that the worker's Codex is set to."""
    resume: Annotated[str, Field(max_length=128)] = ""
    """Codex thread to continue; empty for a new one."""
    timeout_ms: Annotated[int, Field(ge=0, le=YEAR_MS)] = 0
    """Maximum time the turn may take; 0 for no limit."""
    approval_timeout_ms: Annotated[int, Field(ge=1, le=YEAR_MS)] = HOUR_MS
    """How long people have for each request; a request that is not approved by then is declined."""


@dataclass
class CodexResult:
    """What became of a turn that Codex completed."""

    codex_thread_id: str
    """The thread, to be resumed."""
    turn_id: str
    text: str
    """The last message, cut if it is long."""
