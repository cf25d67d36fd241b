"""Checking the order of a record: its seqs show whether an event is missing, doubled or moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from oa_base.refusal import Refusal

T = TypeVar("T")


def in_sequence(
    items: Iterable[T], seq_of: Callable[[T], int], count: int | None = None, *, first: int = 1
) -> Iterator[T]:
    """Yield the items while their seqs are `first`, `first` + 1, … up to `count`, which is None for a record of unknown
    length.

    Lazy: each item is checked when it is asked for, so a caller can process a record while reading it. Raises Refusal
    with the seq in its metadata: `event_missing`, `event_doubled`, `event_misplaced`; at the end `tail_cut` when the
    record is shorter than `count`, and `sequence_broken` when it is longer.
    """
    rest = iter(items)
    expected = first - 1
    for expected, item in enumerate(rest, start=first):
        seq = seq_of(item)
        if seq != expected:
            raise _broken(seq, expected, map(seq_of, rest), first)
        if count is not None and seq > count:
            raise _refusal("sequence_broken", f"the record goes on after event {count}, its last", seq)
        yield item
    if count is not None and expected < count:
        raise _refusal("tail_cut", f"the record ends after event {expected}; {count} are stated", expected + 1)


def _broken(seq: int, expected: int, rest: Iterator[int], first: int) -> Refusal:
    if seq < 1:
        return _refusal("sequence_broken", f"{seq} is no seq", expected)
    if seq < first:
        return _refusal("sequence_broken", f"the record begins with event {first}; {seq} stands in it", seq)
    if seq < expected:
        return _refusal("event_doubled", f"event {seq} stands in the record again after event {expected - 1}", seq)
    if any(later == expected for later in rest):
        return _refusal("event_misplaced", f"event {seq} stands where {expected} should, which comes later", expected)
    return _refusal("event_missing", f"event {expected} is missing: {seq} follows {expected - 1}", expected)


def _refusal(reason: str, text: str, seq: int) -> Refusal:
    return Refusal(reason, text, metadata={"seq": str(seq)})
