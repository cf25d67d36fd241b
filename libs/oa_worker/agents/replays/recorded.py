"""A run as it was recorded, for tests of today's code: from a replay artifact, or from the events of the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from oa_base.refusal import Refusal
from oa_runlog.events import (
    AgentSpec,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunSpec,
    RunStarted,
)
from oa_runlog.proof.outcome import finished, next_state
from oa_runlog.proof.receipt import read_facts
from oa_runlog.proof.replay import MAX_LINE_BYTES, ReplayReader
from oa_runlog.state import RunState
from oa_runlog.wire import encode_body, encode_event

_AUTHORITY = 0
_ZSTD_MAGIC = bytes.fromhex("28b52ffd")


class HasLatestSeq(Protocol):
    """The state of a run."""

    @property
    def latest_seq(self) -> int:
        """Newest seq of its log."""


class Followed(Protocol):
    """A run at the service: `openagents.RunHandle`."""

    async def state(self) -> HasLatestSeq:
        """The state of the run."""

    def events(self) -> AsyncGenerator[RunEvent, None]:
        """Its events, from the first one on."""


@dataclass(frozen=True)
class RecordedRun:
    """The log of one run, from its first event on; for a run that has not ended, as far as the log goes."""

    events: tuple[RunEvent, ...]
    source: str = ""
    """Where it comes from: a file's name, or the run's id."""

    @classmethod
    def of(cls, events: Iterable[RunEvent], source: str = "") -> RecordedRun:
        """Make a run from its events, all of them and in order. Raises Refusal `outcome_mismatch` for events that are
        not a run's log, and `invalid_value` for the run of a command or a prompt.
        """
        kept = tuple(events)
        state: RunState | None = None
        for event in kept:
            data = encode_event(event.run_id, event.seq, event.recorded_ns, event.lease_epoch, encode_body(event.body))
            state = next_state(state, event, data)
        if state is None:
            raise Refusal("outcome_mismatch", "there is no event; give all events of the run", field="events")
        return cls(kept, source or state.run_id)._of_an_agent()

    @classmethod
    def file(cls, path: Path | str) -> RecordedRun:
        """Read a run from a replay artifact, as `oa replay save` and `oa replay fetch` write it.

        The order, chain and hashes of the file must be correct, and its receipt must state what the events say.
        Signatures are not checked, because that takes a key: `oa replay verify` checks them. Raises Refusal, with the
        file's name in `field`: `artifact_malformed` and the others of docs/protocol/replay.md. Raises OSError.
        """
        path = Path(path)
        try:
            with path.open("rb") as opened:
                return cls(_checked(opened), path.name)._of_an_agent()
        except Refusal as refusal:
            text = f"{path.name}: {refusal.message}"
            raise Refusal(refusal.reason, text, field=path.name, metadata=refusal.metadata) from None

    @classmethod
    async def fetch(cls, run: Followed) -> RecordedRun:
        """Fetch a run from the service, as far as its log goes now. Raises Refusal as `RunHandle.events` does."""
        latest, events = (await run.state()).latest_seq, []
        async with aclosing(run.events()) as following:
            async for event in following:
                events.append(event)
                if event.seq >= latest:
                    break
        return cls.of(events)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.events[0].run_id

    @property
    def spec(self) -> RunSpec:
        """The run's spec; `adapter` is the name of its agent."""
        created = self.events[0].body
        assert isinstance(created, RunCreated)  # the first event of every run
        return created.spec

    @property
    def attempt(self) -> int:
        """The number of its last attempt; 1 for a run that no worker had."""
        return max((event.body.attempt for event in self.events if isinstance(event.body, RunStarted)), default=1)

    @property
    def before_last_attempt(self) -> tuple[RunEvent, ...]:
        """The events that were in the log when the last attempt began."""
        starts = [event.seq for event in self.events if isinstance(event.body, RunStarted)]
        return self.events[: max(starts, default=0)]

    @property
    def end(self) -> RunEvent | None:
        """The finish, if the worker wrote it; a finish by the authority says nothing about the agent."""
        last = self.events[-1]
        return last if isinstance(last.body, RunFinished) and last.lease_epoch != _AUTHORITY else None

    @property
    def cancel(self) -> RunEvent | None:
        """The event in which somebody asked for the run's end."""
        return next((event for event in self.events if isinstance(event.body, RunCancelRequested)), None)

    def _of_an_agent(self) -> RecordedRun:
        if not isinstance(self.spec.input, AgentSpec):
            text = f"this is a run of {self.spec.adapter!r}, which is no agent; give runs of agents"
            raise Refusal("invalid_value", text, field="spec", metadata={"run_id": self.run_id})
        return self


def _checked(opened: BinaryIO) -> tuple[RunEvent, ...]:
    reader = ReplayReader(_lines(opened))
    state: RunState | None = None
    events = []
    for one in reader.events():
        state = next_state(state, one.event, one.data)
        events.append(one.event)
    receipt = reader.receipt()
    try:
        facts = read_facts(receipt.canonical_json)
    except ValueError:
        text = "its receipt has another form; get the file again with oa replay fetch"
        raise Refusal("artifact_malformed", text) from None
    if facts.chain_head != reader.chain.hex():
        text = "the events do not give the chain head of the receipt; get the file again with oa replay fetch"
        raise Refusal("chain_mismatch", text)
    finished(state, facts)
    return tuple(events)


def _lines(opened: BinaryIO) -> Iterator[bytes]:
    """The lines as they are, each with its line end. A line that is too long comes in pieces, which are no lines."""
    if opened.peek(len(_ZSTD_MAGIC)).startswith(_ZSTD_MAGIC):  # type: ignore[attr-defined]  # of a BufferedReader
        text = "it is compressed with zstd; unpack it first, or get it with oa replay fetch"
        raise Refusal("artifact_malformed", text)
    while line := opened.readline(MAX_LINE_BYTES + 1):
        yield line
