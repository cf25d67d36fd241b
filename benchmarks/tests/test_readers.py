"""What the reading benchmarks compute, without servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.catchup import read_all, summary
from benchmarks.readers import Page, Seen, begun_ns, stamped_events


async def pages(*given: Page) -> AsyncIterator[Page]:
    for page in given:
        yield page


def test_a_stored_event_says_when_its_append_began() -> None:
    body = stamped_events(1, 256, 1_234_567_890_123)[0]
    assert len(body.text_delta.data) == 256
    assert begun_ns(b"envelope" + body.SerializeToString() + b"more") == 1_234_567_890_123
    assert begun_ns(b"no stamp") is None


def test_a_page_counts_all_its_events_and_the_age_of_the_first() -> None:
    seen = Seen()
    old, new = (stamped_events(1, 256, begun)[0].SerializeToString() for begun in (1_000_000, 5_000_000))
    seen.add([old, new], 7_000_000)
    seen.add([b"no stamp"], 7_000_000)
    assert (seen.events, seen.ages_ms) == (3, [6.0])


async def test_catching_up_ends_at_the_head_and_counts_bytes() -> None:
    assert await read_all(pages((1, [b"a", b"bc"]), (3, [b"d"]), (4, [b"never read"])), 3) == 4


async def test_catching_up_refuses_a_hole_and_an_early_end() -> None:
    with pytest.raises(AssertionError, match="position 4 came where 3 was due"):
        await read_all(pages((1, [b"a", b"b"]), (4, [b"d"])), 4)
    with pytest.raises(AssertionError, match="ended before 3"):
        await read_all(pages((1, [b"a", b"b"])), 3)


def test_rounds_are_told_by_their_median_and_their_range() -> None:
    row = summary("TailLog", 2, 1000, [4.0, 1.0, 2.0])
    assert (row.events, row.seconds, row.per_second) == (2000, 2.0, 1000.0)
    assert row.note == "3 rounds, 500 to 2,000 events/s"
