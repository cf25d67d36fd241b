"""The contents of the log: events at their places, and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from oa_runlog.events import RunSpec
from oa_runlog.state import RunState


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with its spec."""

    state: RunState
    spec: RunSpec
    floor: int = 0
    """Lowest seq after which the run's events are in the log: the newest once they have moved to the archive."""


@dataclass(frozen=True, slots=True)
class RunExcerpt:
    """A run and the events that show how it stands, as of one moment: stored events in the order of the log.

    `messages`, `output` (pieces of text) and `requests` (asked and settled) are the newest. `progress` is the newest
    one of the newest attempt. `steps` counts all steps. A run whose events have left the log has none of them.
    """

    run: RunRecord
    messages: Sequence[bytes]
    output: Sequence[bytes]
    requests: Sequence[bytes]
    progress: bytes | None
    steps: int


class LogRecord(NamedTuple):
    """A stored event at its place in the log. `chain` is the run's chain value there; empty if it was not read.

    `type` is an EventType, or a name that only a later release knows: the replica that wrote the event may be of it.
    """

    position: int
    run_id: str
    seq: int
    type: str
    data: bytes
    chain: bytes = b""
