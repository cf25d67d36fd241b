"""What of a source's publishing is subscribed, and when frames are taken there."""

from __future__ import annotations

from collections.abc import Callable

from oa_testing.metrics import value_of
from services.khala_gateway.sources.app.published import PublishedFrames
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import FRAMES_BY_SUBJECT

LIMITS = SourceLimits(check_ms=5_000)


class Subscribed:
    """`Subscriptions` that a test publishes to."""

    def __init__(self) -> None:
        self.heard: dict[str, Callable[[bytes], None]] = {}

    def subscribe(self, subject: str, heard: Callable[[bytes], None]) -> None:
        self.heard[subject] = heard

    def unsubscribe(self, subject: str) -> None:
        del self.heard[subject]


def made() -> tuple[PublishedFrames, Subscribed, list[bytes], list[bool]]:
    subscribed, taken, changes = Subscribed(), list[bytes](), list[bool]()
    published = PublishedFrames("runtime", subscribed, LIMITS)
    published.bind(taken.append, lambda: changes.append(published.by_subject))
    return published, subscribed, taken, changes


def test_topics_are_subscribed_where_the_stream_says_and_the_checks_after_them() -> None:
    published, subscribed, taken, _ = made()
    published.add(["t1"])
    assert subscribed.heard == {}, "nobody has said where"
    published.announced("s1", ["t1", "t2"])
    assert list(subscribed.heard) == ["s1.t1", "s1.t2", "s1.check"]
    published.announced("s1", [])
    published.add(["t2", "t3"])
    published.remove(["t1", "never"])
    assert list(subscribed.heard) == ["s1.t2", "s1.check", "s1.t3"]
    old = subscribed.heard["s1.t2"]
    old(b"1")
    published.announced("s2", ["t2"])
    assert list(subscribed.heard) == ["s2.t2", "s2.check"]
    old(b"late")
    subscribed.heard["s2.t2"](b"2")
    assert taken == [b"1", b"2"]
    published.announced("", ["t2"])
    assert subscribed.heard == {}


def test_the_source_is_told_of_each_change_once() -> None:
    published, subscribed, _, changes = made()
    published.announced("s1", ["t1"])
    published.came(1, 1.0)
    published.came(2, 2.0)
    assert (changes, value_of(FRAMES_BY_SUBJECT.labels("runtime"))) == ([True], 1)
    published.came_on_stream(7.1)
    published.came_on_stream(8.0)
    assert (changes, value_of(FRAMES_BY_SUBJECT.labels("runtime"))) == ([True, False], 0)
    published.came(3, 9.0)
    published.lost("the connection broke")
    assert changes == [True, False, True, False]
    published.came(4, 10.0)
    published.ended()
    assert changes[-1] is False
    assert subscribed.heard == {}
