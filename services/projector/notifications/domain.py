"""The events of a run that its person is told about. A pure function, so the same log gives the same notifications."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from oa_khala.topics import user_notifications
from oa_runlog.events import RequestAnswered, RequestExpired, RequestOpened, RunEvent, RunFinished
from services.projector.journal.domain import JournalEntry

Told = RunFinished | RequestOpened | RequestAnswered | RequestExpired
"""Events that a person is told about: how a run ended, and what it waits for, or no longer waits for."""


@dataclass(frozen=True, slots=True)
class Notification:
    """`openagents.projection.v1.Notification`. `recorded_ns` is nanoseconds since the Unix epoch."""

    run_id: str
    title: str
    run_seq: int
    recorded_ns: int
    about: Told


Encode = Callable[[Notification], bytes]
"""Returns the notification's document; equal notifications give equal bytes."""


def notifications(user_id: str, title: str, events: Iterable[RunEvent], encode: Encode) -> list[JournalEntry]:
    """The notifications to the person `user_id`, who started the run of this title, about `events`, in their order."""
    topic = user_notifications(user_id)
    told = (event for event in events if isinstance(event.body, Told))
    return [JournalEntry(topic, event.run_id, encode(_notification(event, title))) for event in told]


def _notification(event: RunEvent, title: str) -> Notification:
    assert isinstance(event.body, Told)
    # Clients get an agent's result from the authority, as with summaries.
    about = replace(event.body, result_json="") if isinstance(event.body, RunFinished) else event.body
    return Notification(event.run_id, title, event.seq, event.recorded_ns, about)
