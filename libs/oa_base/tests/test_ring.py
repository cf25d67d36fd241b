"""The ring: a run of consecutive items up to the head, within its bounds, whatever is offered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oa_base.ring import Hole, Ring


def item(number: int) -> bytes:
    return b"%d" % number


def items(first: int, last: int) -> list[bytes]:
    return [item(number) for number in range(first, last + 1)]


def ring(head: int = 0, max_items: int = 100, max_bytes: int = 10_000) -> Ring[bytes]:
    return Ring(head, len, max_items, max_bytes)


@pytest.mark.parametrize(
    ("first", "last", "taken", "hole"),
    [
        (4, 5, items(4, 5), None),
        (2, 5, items(4, 5), None),
        (1, 3, [], None),
        (5, 6, [], Hole(3, 6)),
        (9, 8, [], None),
    ],
    ids=["next", "overlapping", "old", "beyond a hole", "nothing"],
)
def test_what_follows_on_the_head_is_taken(first: int, last: int, taken: list[bytes], hole: Hole | None) -> None:
    it = ring(3)
    assert list(it.take(first, items(first, last))) == taken
    assert it.head == 3 + len(taken)
    assert it.hole == hole


def test_what_is_known_to_exist_is_missing_until_it_comes() -> None:
    it = ring(3)
    it.expect(5)
    it.expect(2)
    assert it.hole == Hole(3, 5)
    it.take(4, items(4, 4))
    assert it.hole == Hole(4, 5)
    it.take(5, items(5, 6))
    assert it.hole is None


def test_the_newest_item_stays_even_when_it_alone_is_larger() -> None:
    it = ring(max_bytes=10)
    it.take(1, [b"a" * 6, b"b" * 4])
    assert (it.ring_start, it.ring_bytes) == (1, 10)
    it.take(3, [b"c" * 50])
    assert (it.ring_start, it.ring_bytes, it.slice(3, 9, 1)) == (3, 50, [b"c" * 50])


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 30), st.integers(0, 40))
def test_a_slice_is_the_longest_within_its_limits(first: int, max_items: int, max_bytes: int, count: int) -> None:
    it = ring(max_items=8)
    it.take(1, items(1, count))
    got = it.slice(first, max_items, max_bytes)
    if first < it.ring_start:
        assert got is None
        return
    assert got is not None
    assert got == items(first, first + len(got) - 1)
    longer = items(first, min(first + len(got), it.head))
    if got:
        assert len(got) <= max_items
        assert len(got) == 1 or sum(map(len, got)) <= max_bytes
        assert len(longer) == len(got) or len(longer) > max_items or sum(map(len, longer)) > max_bytes
    else:
        assert first > it.head


class AgainstAList(RuleBasedStateMachine):
    """A ring beside a plain list of everything that it should have taken."""

    @initialize(head=st.integers(0, 5), max_items=st.integers(1, 12), max_bytes=st.integers(1, 30))
    def begin(self, head: int, max_items: int, max_bytes: int) -> None:
        self.bounds = max_items, max_bytes
        self.ring = ring(head, max_items, max_bytes)
        self.head = self.known_head = head

    @rule(ahead=st.integers(-6, 3), count=st.integers(0, 30))
    def take(self, ahead: int, count: int) -> None:
        first = max(1, self.head + ahead)
        last = first + count - 1
        taken = self.ring.take(first, items(first, last))
        fits = count > 0 and first <= self.head + 1 <= last
        assert list(taken) == (items(self.head + 1, last) if fits else [])
        self.head = last if fits else self.head
        self.known_head = max(self.known_head, last if count else 0)

    @rule(ahead=st.integers(-6, 6))
    def expect(self, ahead: int) -> None:
        self.ring.expect(self.head + ahead)
        self.known_head = max(self.known_head, self.head + ahead)

    @rule()
    def expect_nothing(self) -> None:
        self.ring.expect_nothing()
        self.known_head = self.head

    @invariant()
    def it_holds_the_newest_within_its_bounds(self) -> None:
        it = self.ring
        assert (it.head, it.known_head) == (self.head, self.known_head)
        assert it.hole == (Hole(self.head, self.known_head) if self.known_head > self.head else None)
        held = it.slice(it.ring_start, 1_000, 1_000_000)
        assert held == items(it.ring_start, it.head)
        assert it.ring_bytes == sum(map(len, held))
        assert len(held) <= self.bounds[0]
        assert it.ring_bytes <= self.bounds[1] or len(held) == 1


TestAgainstAList = AgainstAList.TestCase
