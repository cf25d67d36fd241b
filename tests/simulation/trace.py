"""Who did what and when, on virtual time: what a person reads when a schedule has failed."""

from __future__ import annotations

import asyncio
from collections import deque

from oa_khala.frames import (
    CaughtUp,
    ClientFrame,
    Cursor,
    ErrorFrame,
    Event,
    Hello,
    RefreshToken,
    ServerFrame,
    Snapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

KEPT = 60
"""Lines that a failure shows; a seed that runs alone shows all of them."""

_Frame = ServerFrame | ClientFrame


class Trace:
    """The newest notes of a schedule. They are put into words when somebody reads them: most schedules hold."""

    def __init__(self, kept: int | None = KEPT) -> None:
        """`kept`: how many lines; None for all."""
        self._notes: deque[tuple[float, str, str, object]] = deque(maxlen=kept)
        self.is_over = False
        """Whether the schedule has ended. What its tasks still do when they are canceled is no part of it."""

    def note(self, who: str, what: str, about: object = "") -> None:
        """`who` did `what`; `about` is a frame, or anything whose text tells more. It must not change later."""
        if not self.is_over:
            self._notes.append((asyncio.get_running_loop().time(), who, what, about))

    def __str__(self) -> str:
        return "\n".join(
            f"{at_s:9.3f} s  {who:<9} {what} {_said(about)}".rstrip() for at_s, who, what, about in self._notes
        )


def short(topic: str) -> str:
    """A topic without its id: there is one of each class."""
    head, _, tail = topic.partition(":")
    return f"{head}:{tail.rpartition(':')[2]}"


def _said(about: object) -> str:
    match about:
        case Subscribe():
            return "SUBSCRIBE " + ", ".join(f"{short(name)} {_place(cursor)}" for name, cursor in about.topics)
        case Unsubscribe():
            return "UNSUBSCRIBE " + ", ".join(map(short, about.topics))
        case Hello() | RefreshToken():
            return f"{_kind(about)} with token {about.token.partition('|')[0]}"
        case Subscribed():
            stands = f"floor {about.floor}, head {about.head}"
            return f"SUBSCRIBED {short(about.topic)} {about.plan.name} from {about.epoch}/{about.from_seq} ({stands})"
        case Event() | CaughtUp() | Snapshot():
            return f"{_kind(about)} {short(about.topic)} {about.seq}"
        case ErrorFrame():
            return f"ERROR {short(about.topic) if about.topic else 'connection'} {about.reason}"
        case Cursor():
            return _place(about)
        case str():
            return about
        case _:
            return _kind(about)


def _kind(frame: object) -> str:
    return type(frame).__name__.upper()


def _place(cursor: Cursor | None) -> str:
    return "without a cursor" if cursor is None else f"after {cursor.epoch}/{cursor.applied_seq}"
