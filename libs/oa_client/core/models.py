"""The results of commands as plain values; `wire` maps the contracts' messages to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oa_runlog.events import RunEvent

JsonDocument = dict[str, Any]
"""The message in the strict proto3 JSON mapping, for `--json`."""


@dataclass(frozen=True)
class Finish:
    """How a run ended. `exit_code` is None if a signal ended the command, or if it never ran.

    `result_json` is the result of an agent as JSON text; empty if there is none, and in the read model's answers.
    """

    outcome: str
    reason: str
    message: str
    exit_code: int | None = None
    signal: int = 0
    duration_ms: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    result_json: str = ""


@dataclass(frozen=True)
class AskedRequest:
    """A request of a run. `kind`: approval, choice or text. `options`: id -> the text that people see.

    `state`: open, answered or expired. `answer`: the option or the text that counts; empty while the request is open.
    """

    request_id: str
    kind: str
    title: str
    detail: str
    options: dict[str, str]
    opened_at: str
    deadline_at: str
    state: str
    answer: str
    answered_by: str
    document: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far a run is, for people. `done` and `total` are in the agent's own units; None if it does not count."""

    text: str
    done: int | None
    total: int | None


@dataclass(frozen=True)
class Run:
    """A run as the authority or the read model returns it. From the read model, most fields after `document` are empty.

    Only the read model has `progress`. No worker gets the run before `not_before`, and it is ended at `deadline`; each
    is empty if there is no such time. `status` is one of `wire.RUN_STATUSES`, or the number of a status that only a
    newer service has. Times are RFC 3339. `parent_run_id`: the run that started it; empty if none did.
    """

    run_id: str
    title: str
    adapter: str
    status: str
    latest_seq: int
    worker_id: str
    attempt: int
    created_at: str
    finish: Finish | None
    document: JsonDocument
    chain_head: bytes = b""
    events_topic: str = ""
    text_bytes: int = 0
    retention_class: str = ""
    not_before: str = ""
    deadline: str = ""
    parent_run_id: str = ""
    progress: Progress | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.finish is not None


@dataclass(frozen=True)
class RunAt:
    """A run as of the event `run.latest_seq`: the content of a snapshot of its events.

    `messages`, `output` (pieces of text) and `open_requests` are events of the run, oldest first. There may be more
    messages and output before them; `totals` counts them too. If the run's events have left the log, `archived_bytes`
    is the size of the replay artifact that contains them, and `archived_sha256` its SHA-256. Otherwise `archived_bytes`
    is 0.
    """

    run: Run
    totals: dict[str, int]
    messages: tuple[RunEvent, ...]
    output: tuple[RunEvent, ...]
    open_requests: tuple[RunEvent, ...]
    progress: Progress | None
    steps: int
    archived_sha256: bytes
    archived_bytes: int
    document: JsonDocument


@dataclass(frozen=True)
class Page:
    """A page of runs; `next_page_token` is empty on the last page."""

    runs: tuple[Run, ...]
    next_page_token: str


@dataclass(frozen=True)
class SyncGrant:
    """A sync token, its lifetime, the address to use it at, and the topics that it does not grant (topic, reason)."""

    token: str
    topics: frozenset[str]
    expires_in_ms: int
    refused: tuple[tuple[str, str], ...]
    khala_url: str

    def __repr__(self) -> str:
        return f"SyncGrant({sorted(self.topics)})"


@dataclass(frozen=True)
class Session:
    """A sign-in on a device. Times are RFC 3339; `revoked_at` is empty unless it was revoked."""

    session_id: str
    device_id: str
    created_at: str
    refreshed_at: str
    revoked_at: str
    revoke_reason: str
    current: bool
    document: JsonDocument


@dataclass(frozen=True)
class ServiceAccount:
    """A service account. Times are RFC 3339; `revoked_at` is empty unless it was revoked."""

    service_account_id: str
    name: str
    created_at: str
    revoked_at: str
    document: JsonDocument


@dataclass(frozen=True)
class NewServiceAccount:
    """A service account, and its key, which is shown only once."""

    service_account_id: str
    name: str
    api_key_id: str
    api_key: str
    document: JsonDocument

    def __repr__(self) -> str:
        return f"NewServiceAccount({self.service_account_id})"


@dataclass(frozen=True)
class Caller:
    """The caller as the edge identifies it."""

    subject: str
    org_id: str
    email: str
    scopes: tuple[str, ...]
    khala_url: str


@dataclass(frozen=True)
class InclusionProof:
    """The proof that a receipt is leaf `leaf_index` (from 0) of the log that the signed note `checkpoint` states."""

    leaf_index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True)
class ArtifactPiece:
    """Bytes of a replay artifact that has `total_bytes` and this SHA-256."""

    data: bytes
    total_bytes: int
    sha256: bytes
