"""The benchmark of a rolling restart: everybody comes back, and nothing is lost or comes twice."""

from __future__ import annotations

import pytest

from benchmarks.gateway_roll import BINS, histogram, longest_ms, measured


def test_the_plan_is_as_many_in_each_part_of_the_window() -> None:
    lines = list(histogram([0.0, 50.0, 1_300.0], 1_200))
    assert len(lines) == BINS + 2
    assert [int(line.split()[2]) for line in lines] == [2, *[0] * 12, 1]
    assert {line.split()[4] for line in lines[:BINS]} == {"0.2"}
    assert {line.split()[4] for line in lines[BINS:]} == {"0.0"}


def test_a_time_without_events_counts_from_the_one_before_and_to_the_end() -> None:
    assert longest_ms([0.0, 1.0, 1.5, 9.0], 2.0, 4.0) == 2_500
    assert longest_ms([2.5], 2.0, 4.0) == 1_500
    assert longest_ms([], 2.0, 4.0) == 2_000


@pytest.mark.long
async def test_two_gateways_are_restarted_one_after_the_other() -> None:
    still, first, second = await measured(clients=6, events_per_s=20, window_ms=200, still_s=0.2)
    assert all(roll.figures.note.endswith("lost 0, doubled 0") for roll in (still, first, second))
    assert still.back_ms == []
    # All are at the second one when that goes.
    assert (len(first.back_ms), len(second.back_ms)) == (3, 6)
