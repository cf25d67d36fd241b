"""The feed: whatever the fanout does, the ring is a run of the authority's log."""

from hypothesis import given
from hypothesis import strategies as st

from oa_base.ring import Hole
from oa_khala.feed import Feed, FeedLimits
from oa_khala.frames import TopicState


def entry(seq: int) -> bytes:
    return b"%d" % seq


def entries(first: int, last: int) -> list[bytes]:
    return [entry(seq) for seq in range(first, last + 1)]


def feed(head: int = 0, limits: FeedLimits | None = None) -> Feed[bytes]:
    return Feed(TopicState("e", 0, head), len, limits)


def test_the_next_ones_are_appended_and_old_ones_dropped() -> None:
    it = feed(5)
    assert it.offer(6, entries(6, 8))
    assert not it.offer(6, entries(6, 8))
    assert it.offer(7, entries(7, 9))
    assert (it.head, it.ring_start, it.hole) == (9, 6, None)
    assert it.slice(6, 10, 1000) == entries(6, 9)


def test_a_hole_is_parked_named_and_closed_by_history() -> None:
    it = feed()
    it.offer(1, entries(1, 2))
    assert not it.offer(5, entries(5, 6))
    assert not it.offer(8, entries(8, 8))
    assert (it.head, it.hole, len(it.parked)) == (2, Hole(2, 4), 3)
    assert it.offer(3, entries(3, 4))
    assert (it.head, it.hole) == (6, Hole(6, 7))
    assert it.offer(7, entries(7, 7))
    assert (it.head, it.hole, len(it.parked)) == (8, None, 0)
    assert it.slice(1, 100, 1000) == entries(1, 8)


def test_history_that_overlaps_what_is_parked_is_taken_once() -> None:
    it = feed()
    it.offer(4, entries(4, 6))
    assert it.offer(1, entries(1, 5))
    assert (it.head, len(it.parked), it.hole) == (6, 0, None)
    assert it.slice(1, 100, 1000) == entries(1, 6)


def test_what_finds_no_room_behind_a_hole_is_remembered_as_missing() -> None:
    it = feed(limits=FeedLimits(parked_events=2))
    it.offer(3, entries(3, 9))
    assert (len(it.parked), it.hole) == (2, Hole(0, 2))
    it.offer(1, entries(1, 2))
    assert (it.head, it.hole) == (4, Hole(4, 9))
    it.offer(5, entries(5, 9))
    assert (it.head, it.hole) == (9, None)


def test_parked_bytes_are_bounded_too() -> None:
    it = feed(limits=FeedLimits(parked_bytes=10))
    it.offer(3, [b"x" * 6, b"y" * 6, b"z" * 4])
    assert len(it.parked) == 2
    assert it.hole == Hole(0, 2)


def test_the_ring_is_bounded_by_events_and_by_bytes_and_keeps_the_newest() -> None:
    by_count = feed(limits=FeedLimits(ring_events=3))
    by_count.offer(1, entries(1, 10))
    assert (by_count.ring_start, by_count.head, by_count.ring_bytes) == (8, 10, 4)
    assert by_count.slice(7, 10, 100) is None
    assert by_count.slice(8, 10, 100) == entries(8, 10)
    by_bytes = feed(limits=FeedLimits(ring_bytes=10))
    by_bytes.offer(1, [b"a" * 4, b"b" * 4, b"c" * 4])
    assert by_bytes.ring_start == 2
    by_bytes.offer(4, [b"d" * 50])
    assert (by_bytes.ring_start, by_bytes.slice(4, 9, 10)) == (4, [b"d" * 50])


def test_a_slice_keeps_both_limits_but_moves_always() -> None:
    it = feed()
    it.offer(1, [b"aaaa", b"bbbb", b"cccc"])
    assert it.slice(1, 2, 1000) == [b"aaaa", b"bbbb"]
    assert it.slice(1, 9, 9) == [b"aaaa", b"bbbb"]
    assert it.slice(2, 9, 1) == [b"bbbb"]
    assert it.slice(4, 9, 9) == []
    assert it.slice(9, 9, 9) == []


def test_a_newer_head_is_a_hole_an_older_one_nothing_and_another_lineage_the_end() -> None:
    it = feed(5)
    assert it.observe(TopicState("e", 2, 9))
    assert (it.hole, it.floor) == (Hole(5, 9), 2)
    assert it.observe(TopicState("e", 0, 3))
    assert (it.known_head, it.floor, it.state) == (9, 2, TopicState("e", 2, 5))
    assert not it.observe(TopicState("f", 0, 100))
    assert it.known_head == 9


offers = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), max_size=60)
limits = st.builds(FeedLimits, st.integers(1, 12), st.integers(1, 30), st.integers(0, 6), st.integers(0, 12))


@given(st.integers(0, 5), offers, limits)
def test_whatever_comes_the_ring_is_a_run_of_the_log_within_its_bounds(
    head: int, batches: list[tuple[int, int]], bounds: FeedLimits
) -> None:
    it = feed(head, bounds)
    known = head
    for first, count in batches:
        before = it.head
        moved = it.offer(first, entries(first, first + count - 1))
        known = max(known, first + count - 1)  # none say that those below `first` exist
        assert it.head >= before
        assert moved == (it.head > before)
        assert it.known_head == max(known, it.head)
        assert it.slice(it.ring_start, 100, 10_000) == entries(it.ring_start, it.head)
        assert it.ring_bytes == sum(map(len, entries(it.ring_start, it.head)))
        held = it.head + 1 - it.ring_start
        assert held <= bounds.ring_events
        assert it.ring_bytes <= bounds.ring_bytes or held == 1
        assert len(it.parked) <= bounds.parked_events
        assert (it.hole is None) == (it.known_head == it.head)
        while (hole := it.hole) is not None and first % 3 == 0:
            it.offer(hole.after + 1, entries(hole.after + 1, min(hole.up_to, hole.after + 4)))
