"""Whether a source delivers, and by which route, judged by what came from it and when.

Pure: times are seconds of a clock that never goes back.
"""

from __future__ import annotations

from services.khala_gateway.sources.limits import SourceLimits


class Liveness:
    """The signs of life of one source.

    While its stream brings delivery checks, only they count, because they come the same way as frames. Before the first
    check of a stream, and for a source that sends none, what counts is whether the source answers a question.
    """

    def __init__(self, limits: SourceLimits, now_s: float) -> None:
        self._limits = limits
        self._number = 0
        self._checked_s: float | None = None
        self._answers = True
        self._shown_s = now_s

    def began(self) -> None:
        """Note that a new stream stands. What the previous one brought says nothing about it."""
        self._number, self._checked_s = 0, None

    def checked(self, number: int, now_s: float) -> None:
        """Note that the stream brought a delivery check. A repeated number shows nothing."""
        if number != self._number:
            self._number, self._checked_s, self._shown_s = number, now_s, now_s

    def asked(self, answered: bool, now_s: float) -> None:
        """Note whether the source answered when it was asked."""
        self._answers = answered
        if answered:
            self._shown_s = now_s

    @property
    def to_ask(self) -> bool:
        """Whether an answer would count."""
        return self._checked_s is None

    def stopped(self, now_s: float) -> bool:
        """Whether the source delivers nothing at present, as far as is known."""
        if self._checked_s is None:
            return not self._answers
        return now_s - self._checked_s > self._limits.check_ms / 1000

    def gone(self, now_s: float) -> bool:
        """Whether the source has been silent for so long that clients should be sent elsewhere."""
        return now_s - self._shown_s > self._limits.gone_ms / 1000


class FrameRoute:
    """Whether live frames are taken from where the source publishes them, and not from its stream.

    They are while delivery checks come by that route, because a route that brings checks also brings frames. When it
    stops bringing checks while the stream still does, or when it is known to be broken, frames are taken from the
    stream again.
    """

    def __init__(self, limits: SourceLimits) -> None:
        self._limits = limits
        self._number = 0
        self._came_s = 0.0
        self.by_subject = False

    def lost(self) -> None:
        """Note that there is no such route at present."""
        self._number, self.by_subject = 0, False

    def came(self, number: int, now_s: float) -> None:
        """Note that a delivery check came by that route. A repeated number shows nothing."""
        if number != self._number:
            self._number, self._came_s, self.by_subject = number, now_s, True

    def came_on_stream(self, now_s: float) -> None:
        """Note that a delivery check came on the stream."""
        if now_s - self._came_s > self._limits.check_ms / 1000:
            self.by_subject = False
