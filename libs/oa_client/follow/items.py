"""The items that following a run shows: one for each stored element, and for each update of its subscription that says
something. Pure: `run_tail` reads the store and the subscription."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_client.core.log import AppliedLog, LogFold
from oa_client.core.models import RunAt
from oa_client.core.store import Element
from oa_client.core.wire import run_at
from oa_client.follow.updates import Applied, CaughtUp, Connection, Refused, Restarted, Update
from oa_runlog.events import RunEvent


@dataclass(frozen=True)
class Seen:
    """An event of the run, stored here. `live`: it has just arrived; otherwise it was already stored."""

    event: RunEvent
    payload: bytes
    live: bool


@dataclass(frozen=True)
class Began:
    """The run as of some event, in place of its events up to there. The events after it follow.

    `live`: it has just arrived; otherwise it was already stored.
    """

    at: RunAt
    live: bool


@dataclass(frozen=True)
class Broken:
    """The connection broke and is being reopened. However often that fails, this item comes once."""

    message: str


@dataclass(frozen=True)
class Mended:
    """The broken connection works again: events arrive."""


@dataclass(frozen=True)
class StartedOver:
    """The stored log could not be continued and is sent again from its start."""

    reason: str


Item = Seen | Began | Broken | Mended | StartedOver


class EventsArchived(Refusal):
    """The run's events have left the log for the archive: its replay artifact has them (`oa_client.proofs`)."""

    def __init__(self, run_id: str) -> None:
        super().__init__("retention_floor_breach", "the run's events have moved to the archive")
        self.run_id = run_id


class RunItems:
    """Makes the items of one run. `log` is exactly the part of its log that has been seen."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._fold = LogFold(run_id)
        self._broken = False

    @property
    def log(self) -> AppliedLog:
        """Counts and chain head of the log that has been seen."""
        return self._fold.result

    def stored(self, element: Element) -> Seen | Began:
        """Return the item of the next stored element. Raises ValueError if it does not continue the previous one."""
        if element.snapshot:
            return self._began(element.payload, live=False)
        return self._seen(element.seq, element.payload, live=False)

    def update(self, update: Update) -> Sequence[Item]:
        """Return the items of an update of the run's topic.

        Raises Refusal if the topic can't be followed; EventsArchived if it begins after the events that were seen.
        """
        match update:
            case Applied(snapshot=True, payload=payload):
                return [*self._mended(), self._began(payload, live=True)]
            case Applied(seq=seq, payload=payload):
                return [*self._mended(), self._seen(seq, payload, live=True)]
            case Connection(open=False, message=message) if not self._broken:
                self._broken = True
                return [Broken(message)]
            case Restarted(reason=reason):
                self._fold = LogFold(self._run_id)
                return [StartedOver(reason)]
            case CaughtUp(seq=seq):
                if seq > self.log.last_seq:
                    raise EventsArchived(self._run_id)
                return self._mended()
            case Refused(refusal=refusal):
                raise refusal
            case _:
                return []

    def _mended(self) -> Sequence[Item]:
        """Return Mended if the connection was broken. Opening is not enough: it may close before anything arrives."""
        broken, self._broken = self._broken, False
        return [Mended()] if broken else []

    def _began(self, payload: bytes, *, live: bool) -> Began:
        at = run_at(payload)
        self._fold.begin(at.run)
        return Began(at, live)

    def _seen(self, seq: int, payload: bytes, *, live: bool) -> Seen:
        return Seen(self._fold.add(seq, payload), payload, live)
