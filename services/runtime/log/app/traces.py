"""Spans of a commit: from its oldest command's arrival until its events are handed on, and where others read it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from opentelemetry.trace import Span

from oa_base.clock import SECOND_NS
from oa_platform.telemetry.tracing import root_span, span_under
from services.runtime.log.app.pending import PendingCommand

COMMIT = "log.commit"
FOLLOW = "log.follow"
COMMITTED, PUBLISHED = "committed", "published"


def commit_span(commands: Sequence[PendingCommand]) -> AbstractContextManager[Span]:
    """Return one span for a batch, however many commands it has. The calls of the commands are linked to it."""

    def began_ns() -> int:
        waited_s = time.perf_counter() - min(one.since_s for one in commands)
        return time.time_ns() - round(waited_s * SECOND_NS)

    return root_span(COMMIT, began_ns, (one.caller for one in commands), {"oa.commands": len(commands)})


def follow_span(traceparent: str, entries: int) -> AbstractContextManager[None]:
    """Return a span for reading a hole of `entries` entries, under the commit that this replica has heard of."""
    return span_under(FOLLOW, traceparent, {"oa.entries": entries})
