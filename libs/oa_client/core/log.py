"""The applied part of a run's log: counts, chain head, finish, text for people. Made from the stored bytes alone."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from oa_client.core.models import Run
from oa_client.core.store import Element
from oa_client.core.wire import run_at
from oa_runlog import events, wire
from oa_runlog.proof.chain import chain_next, chain_start


@dataclass(frozen=True)
class AppliedLog:
    """A run's log as one client has it. `first_seq` and `last_seq` are 0 if it is empty.

    If the log begins with a snapshot, `first_seq` is the seq after it, and `chain_head` continues its chain.
    """

    run_id: str
    count: int
    first_seq: int
    last_seq: int
    chain_head: bytes
    payload_bytes: int
    finished: bool


class LogFold:
    """Folds a run's events, in order, into an AppliedLog. Raises ValueError on a hole or a repetition."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._count = self._first_seq = self._last_seq = self._bytes = 0
        self._chain = chain_start(run_id)
        self._finished = False

    def begin(self, run: Run) -> None:
        """Start over with the run as of its newest event. The next event to add is the one after that."""
        if run.run_id != self._run_id:
            raise ValueError(f"a state of {run.run_id} is none of {self._run_id}")
        self._count = self._first_seq = self._bytes = 0
        self._last_seq, self._chain, self._finished = run.latest_seq, run.chain_head, run.ended

    def add(self, seq: int, payload: bytes) -> events.RunEvent:
        """Add one event, exactly as it was stored, and return it decoded, as far as its kind is known here."""
        event = wire.seen_event(payload)
        if (event.run_id, event.seq) != (self._run_id, seq) or seq != self._last_seq + 1:
            raise ValueError(f"event {event.seq} of {event.run_id} can't follow event {self._last_seq}")
        self._first_seq = self._first_seq or seq
        self._last_seq = seq
        self._count += 1
        self._bytes += len(payload)
        self._chain = chain_next(self._chain, payload)
        self._finished = isinstance(event.body, events.RunFinished)
        return event

    @property
    def result(self) -> AppliedLog:
        """The log as folded so far."""
        return AppliedLog(
            self._run_id, self._count, self._first_seq, self._last_seq, self._chain, self._bytes, self._finished
        )


def fold(run_id: str, elements: Iterable[Element]) -> AppliedLog:
    """Return the log of a run from the elements that a store holds."""
    folded = LogFold(run_id)
    for element in elements:
        if element.snapshot:
            folded.begin(run_at(element.payload).run)
        else:
            folded.add(element.seq, element.payload)
    return folded.result


class TextDecoder:
    """Bytes of text deltas -> text, each stream on its own. A piece may end within a character. Bytes that are not
    UTF-8 are shown as U+FFFD."""

    def __init__(self) -> None:
        self._decoders: dict[events.TextStream, codecs.IncrementalDecoder] = {}

    def text(self, delta: events.TextDelta) -> str:
        """Return the text that can be shown now; an unfinished character comes with the next piece."""
        decoder = self._decoders.setdefault(delta.stream, codecs.getincrementaldecoder("utf-8")("replace"))
        return decoder.decode(delta.data)
