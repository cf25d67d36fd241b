"""Live frames that a source publishes beside its stream, and whether they are taken from there."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import structlog

from oa_topics.publisher import CHECK
from services.khala_gateway.sources.domain import FrameRoute
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import FRAMES_BY_SUBJECT

_log = structlog.get_logger(__name__)


class Subscriptions(Protocol):
    """Messages that are published on subjects. They may be lost, repeated, late or reordered."""

    def subscribe(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Receive, from soon on, what is published there. Subjects take effect in the order in which they are added."""
        ...

    def unsubscribe(self, subject: str) -> None:
        """Receive no more from there."""
        ...


class PublishedFrames:
    """The frames of wanted topics that a source publishes beside its stream, and whether they are taken from there.

    It begins when the stream says where the source publishes, and ends with the stream. The subject of the checks is
    subscribed to after those of the topics, so that a check arrives only where frames would.
    """

    def __init__(self, source: str, subscriptions: Subscriptions, limits: SourceLimits) -> None:
        self._source = source
        self._subscriptions = subscriptions
        self._route = FrameRoute(limits)
        self._subject = ""
        self._topics: dict[str, None] = {}
        self._take: Callable[[bytes], None] = _nobody
        self._changed: Callable[[], None] = _nothing
        FRAMES_BY_SUBJECT.labels(source).set(0)

    def bind(self, take: Callable[[bytes], None], changed: Callable[[], None]) -> None:
        """`take` receives what is published; `changed` is called when `by_subject` has changed."""
        self._take, self._changed = take, changed

    @property
    def by_subject(self) -> bool:
        """Whether frames are taken from here and not from the stream."""
        return self._route.by_subject

    def announced(self, subject: str, topics: Iterable[str]) -> None:
        """Note where the source publishes, as the stream says; empty for nowhere. `topics` are the wanted ones."""
        if subject == self._subject:
            return
        self.ended()
        self._subject = subject
        if subject:
            self.add(topics)
            self._subscribe(CHECK)

    def ended(self) -> None:
        """Unsubscribe from everything, because the stream has ended."""
        for name in (*self._topics, CHECK) if self._subject else ():
            self._subscriptions.unsubscribe(f"{self._subject}.{name}")
        self._subject = ""
        self._topics.clear()
        self.lost("its stream is another one")

    def add(self, topics: Iterable[str]) -> None:
        """Also take frames of `topics`."""
        for topic in topics if self._subject else ():
            if topic not in self._topics:
                self._topics[topic] = None
                self._subscribe(topic)

    def remove(self, topics: Iterable[str]) -> None:
        """Stop taking frames of `topics`."""
        for topic in topics:
            if topic in self._topics:
                del self._topics[topic]
                self._subscriptions.unsubscribe(f"{self._subject}.{topic}")

    def lost(self, why: str) -> None:
        """Note that published frames can't be reached at present."""
        self._then(self._route.lost, why)

    def came(self, number: int, now_s: float) -> None:
        """Note that a delivery check was published."""
        self._then(partial(self._route.came, number, now_s))

    def came_on_stream(self, now_s: float) -> None:
        """Note that a delivery check came on the stream."""
        self._then(partial(self._route.came_on_stream, now_s), "no delivery checks are published any more")

    def _subscribe(self, name: str) -> None:
        subject = self._subject
        self._subscriptions.subscribe(f"{subject}.{name}", lambda data: self._heard(subject, data))

    def _heard(self, subject: str, data: bytes) -> None:
        if subject == self._subject:
            self._take(data)

    def _then(self, change: Callable[[], None], why: str = "") -> None:
        """Make a change, and report it if it changes `by_subject`."""
        before = self.by_subject
        change()
        if self.by_subject == before:
            return
        FRAMES_BY_SUBJECT.labels(self._source).set(1 if self.by_subject else 0)
        if self.by_subject:
            _log.info("frames_by_subject", source=self._source)
        else:
            _log.warning("frames_on_stream", source=self._source, why=why)
        self._changed()


def _nobody(_: bytes) -> None:
    """Take messages before `bind`; none arrive."""


def _nothing() -> None:
    """Do nothing, because nobody waits for a change yet."""
