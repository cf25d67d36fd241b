"""The span of a commit: from the oldest command's arrival to when its events were handed on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from opentelemetry.trace import Span

from oa_base.clock import SECOND_NS
from oa_platform.telemetry.tracing import root_span
from services.runtime.log.app.pending import PendingCommand

COMMIT = "log.commit"
COMMITTED, PUBLISHED = "committed", "published"


def commit_span(commands: Sequence[PendingCommand]) -> AbstractContextManager[Span]:
    """One for a batch, whatever the number of its commands: their calls are linked."""

    def began_ns() -> int:
        waited_s = time.perf_counter() - min(one.since_s for one in commands)
        return time.time_ns() - round(waited_s * SECOND_NS)

    return root_span(COMMIT, began_ns, (one.caller for one in commands), {"oa.commands": len(commands)})
