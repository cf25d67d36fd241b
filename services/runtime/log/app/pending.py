"""Commands that wait for a sequencer, and how they are answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import cache

from opentelemetry.trace import SpanContext

from oa_base.refusal import Refusal
from oa_platform.telemetry.tracing import sampled_context
from oa_runlog.authority.commands import Append, AssignRun, CancelDeadline, Command, LoseLease, TimeLimit
from services.runtime.log import metrics
from services.runtime.log.domain.batch import Answer, Applied
from services.runtime.log.domain.pipeline import Place


def org_of(command: Command) -> str:
    """The org that sent a command; empty for a command of our own."""
    return "" if isinstance(command, AssignRun | LoseLease | CancelDeadline | TimeLimit) else command.org_id


@dataclass(slots=True)
class PendingCommand:
    """A command on a run of `partition`, and the future that gets its answer."""

    command: Command
    partition: int
    answer: asyncio.Future[Applied]
    place: Place | None = None
    """The place of an append among those of its stream."""
    org_id: str = field(init=False)
    """The org that sent it; empty for a command of our own."""
    size: int = field(init=False)
    """Bytes of its events."""
    since_s: float = field(default_factory=time.perf_counter)
    """When it arrived."""
    caller: SpanContext | None = field(default_factory=sampled_context)
    """The span in which it arrived, if a collector gets that span."""

    def __post_init__(self) -> None:
        self.org_id = org_of(self.command)
        self.size = sum([len(event.data) for event in self.command.events]) if isinstance(self.command, Append) else 0

    def settle(self, answer: Answer) -> None:
        """Answer the command."""
        name = type(self.command).__name__
        if self.place is not None:
            self.place.pipeline.answered(self.place, answer)
        _seconds_of(name).observe(time.perf_counter() - self.since_s)
        if isinstance(answer, Refusal):
            count_command(name, answer.reason)
            if not self.answer.done():
                self.answer.set_exception(answer)
                # The caller may have gone; without this, asyncio would log an error that nobody asked for.
                self.answer.exception()
            return
        count_command(name, "repeated" if answer.repeated else "stored")
        if not self.answer.done():
            self.answer.set_result(answer)


@dataclass(slots=True)
class PendingBatch:
    """Commands that are decided and stored together. Until it is done, no other batch has one of its partitions."""

    commands: list[PendingCommand]
    partitions: frozenset[int]


def count_command(name: str, outcome: str) -> None:
    """Count a command of this type by its outcome."""
    _count_of(name, outcome).inc()


# Finding a metric by its labels costs more than counting.
_seconds_of, _count_of = cache(metrics.COMMAND_SECONDS.labels), cache(metrics.COMMANDS.labels)
