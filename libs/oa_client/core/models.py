"""What comes back from commands, as plain values; `wire` maps the contracts' messages to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oa_runlog.events import RunEvent

JsonDocument = dict[str, Any]
"""The message in the strict proto3 JSON mapping, for `--json`."""


@dataclass(frozen=True)
class Finish:
    """How a run ended. `exit_code` is None when a signal ended the command, or it never ran.

    `result_json` is what an agent returned: a JSON text, empty for none and in the read model's answers.
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
    """A request of a run. `kind`: approval, choice or text. `options`: id -> what people are shown.

    `state`: open, answered or expired. `answer`: the option or the text that counts; empty while it is open.
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
    """How far a run is, for people. `done` and `total` are in the agent's own units; None when it does not count."""

    text: str
    done: int | None
    total: int | None


@dataclass(frozen=True)
class Run:
    """A run: the authority's own answer, or the read model's (then what stands behind `document` is mostly empty).

    Only the read model knows of `progress`. No worker gets it before `not_before`, and it is ended at `deadline`; both
    are empty for no such time. `status` is one of `wire.RUN_STATUSES`, or the number of one that a newer service has.
    Times are RFC 3339. `parent_run_id`: the run that started it, empty for none.
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
        """Whether it has ended."""
        return self.finish is not None


@dataclass(frozen=True)
class RunAt:
    """A run as it stands at the event `run.latest_seq`: what a snapshot of its events says.

    `messages`, `output` (pieces of text) and `open_requests` are events of the run, the oldest first; there may be more
    messages and output before them, which `totals` tell. `archived_bytes` is the size of the replay artifact with
    SHA-256 `archived_sha256` that the run's events are in, if they have left the log; else 0.
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
    """A page of runs; `next_page_token` is empty on the last."""

    runs: tuple[Run, ...]
    next_page_token: str


@dataclass(frozen=True)
class SyncGrant:
    """A sync token, for how long it lives, where to use it, and what it does not carry (topic, reason)."""

    token: str
    topics: frozenset[str]
    expires_in_ms: int
    refused: tuple[tuple[str, str], ...]
    khala_url: str

    def __repr__(self) -> str:
        return f"SyncGrant({sorted(self.topics)})"


@dataclass(frozen=True)
class Session:
    """A sign-in on a device. Times are RFC 3339; `revoked_at` is empty while it was not revoked."""

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
    """A service account. Times are RFC 3339; `revoked_at` is empty while it lives."""

    service_account_id: str
    name: str
    created_at: str
    revoked_at: str
    document: JsonDocument


@dataclass(frozen=True)
class NewServiceAccount:
    """A service account, and its key, which is shown this once."""

    service_account_id: str
    name: str
    api_key_id: str
    api_key: str
    document: JsonDocument

    def __repr__(self) -> str:
        return f"NewServiceAccount({self.service_account_id})"


@dataclass(frozen=True)
class Caller:
    """Who the edge takes the caller for."""

    subject: str
    org_id: str
    email: str
    scopes: tuple[str, ...]
    khala_url: str


@dataclass(frozen=True)
class InclusionProof:
    """The proof that a receipt is leaf `leaf_index`, from 0, of the log that the signed note `checkpoint` states."""

    leaf_index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True)
class ArtifactPiece:
    """Bytes of a replay artifact that has `total_bytes` and this SHA-256."""

    data: bytes
    total_bytes: int
    sha256: bytes
