"""Whether a source delivers, and which way, from what came of it and when.

Pure: times are seconds of a clock that never goes back.
"""

from __future__ import annotations

from services.khala_gateway.sources.limits import SourceLimits


class Liveness:
    """What one source has shown of itself.

    While its stream brings delivery checks, they alone count: they come in the way in which frames come. Before the
    first of a stream, and of a source that sends none, it counts whether the source answers a question.
    """

    def __init__(self, limits: SourceLimits, now_s: float) -> None:
        self._limits = limits
        self._number = 0
        self._checked_s: float | None = None
        self._answers = True
        self._shown_s = now_s

    def began(self) -> None:
        """A new stream stands; what the one before brought says nothing of it."""
        self._number, self._checked_s = 0, None

    def checked(self, number: int, now_s: float) -> None:
        """The stream brought a delivery check. The same number again shows nothing."""
        if number != self._number:
            self._number, self._checked_s, self._shown_s = number, now_s, now_s

    def asked(self, answered: bool, now_s: float) -> None:
        """The source was asked, and has answered or not."""
        self._answers = answered
        if answered:
            self._shown_s = now_s

    @property
    def to_ask(self) -> bool:
        """Whether an answer would count."""
        return self._checked_s is None

    def stopped(self, now_s: float) -> bool:
        """Whether it delivers nothing at present, as far as is known."""
        if self._checked_s is None:
            return not self._answers
        return now_s - self._checked_s > self._limits.check_ms / 1000

    def gone(self, now_s: float) -> bool:
        """Whether it has shown nothing for so long that clients had better be sent elsewhere."""
        return now_s - self._shown_s > self._limits.gone_ms / 1000


class FrameRoute:
    """Whether live frames are taken from where the source publishes them, and not on its stream.

    They are while delivery checks come that way: a way that brings them brings frames too. When it brings none any
    more, and the stream does, or when it is known to be broken, frames are taken on the stream again.
    """

    def __init__(self, limits: SourceLimits) -> None:
        self._limits = limits
        self._number = 0
        self._came_s = 0.0
        self.by_subject = False

    def lost(self) -> None:
        """There is no such way at present."""
        self._number, self.by_subject = 0, False

    def came(self, number: int, now_s: float) -> None:
        """A delivery check came that way. The same number again shows nothing."""
        if number != self._number:
            self._number, self._came_s, self.by_subject = number, now_s, True

    def came_on_stream(self, now_s: float) -> None:
        """A delivery check came on the stream."""
        if now_s - self._came_s > self._limits.check_ms / 1000:
            self.by_subject = False
