"""Pages are handed out again for a moment, and take no more room than they may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.khala_gateway.feeds.app.kept_pages import KeptPages


def test_a_page_is_kept_for_its_time_and_being_wanted_does_not_make_it_longer() -> None:
    pages: KeptPages[str, str] = KeptPages(100, 5.0)
    pages.keep("a", "A", 10, now_s=0.0)
    for now_s in (1.0, 4.0, 5.0):
        assert pages.get("a", now_s) == "A"
    assert pages.get("a", 5.1) is None
    assert (pages.bytes, pages.get("a", 1.0)) == (0, None)


def test_what_is_old_goes_without_being_asked_for() -> None:
    pages: KeptPages[str, str] = KeptPages(100, 5.0)
    pages.keep("a", "A", 10, now_s=0.0)
    pages.keep("b", "B", 10, now_s=3.0)
    pages.forget_old(6.0)
    assert (pages.bytes, pages.get("b", 6.0)) == (10, "B")


def test_without_room_the_one_that_was_wanted_longest_ago_goes() -> None:
    pages: KeptPages[str, str] = KeptPages(30, 5.0)
    for key in "abc":
        pages.keep(key, key.upper(), 10, now_s=0.0)
    pages.get("a", 1.0)
    pages.keep("d", "D", 10, now_s=1.0)
    assert [pages.get(key, 1.0) for key in "abcd"] == ["A", None, "C", "D"]


def test_a_page_that_alone_is_too_large_is_not_kept() -> None:
    pages: KeptPages[str, str] = KeptPages(30, 5.0)
    pages.keep("a", "A", 10, now_s=0.0)
    pages.keep("b", "B", 31, now_s=0.0)
    assert [pages.get(key, 0.0) for key in "ab"] == ["A", None]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 40), st.integers(0, 3))))
def test_its_room_is_never_exceeded(steps: list[tuple[str, int, int]]) -> None:
    pages: KeptPages[str, tuple[str, int]] = KeptPages(60, 5.0)
    sizes: dict[str, int] = {}
    now_s = 0.0
    for key, size, pause in steps:
        now_s += pause
        pages.keep(key, (key, size), size, now_s)
        sizes[key] = size
        assert pages.bytes <= 60
        assert pages.get(key, now_s) == (key, size)
    kept = [found for key in sizes if (found := pages.get(key, now_s)) is not None]
    assert pages.bytes == sum(size for _, size in kept)
    assert all(sizes[key] == size for key, size in kept), "an older page of the same place came back"
