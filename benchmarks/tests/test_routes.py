"""The benchmark of web routes measures what it says. What it comes to says nothing here."""

from __future__ import annotations

import asyncio

from benchmarks.routes import measured


def test_every_replica_is_timed_until_it_serves_the_change_also_when_it_was_cut_off() -> None:
    each, last, cut_each, cut_last, floor = asyncio.run(measured([2], 3, 1))
    assert [len(row.latencies_ms) for row in (each, last, cut_each, cut_last, floor)] == [6, 3, 2, 1, 3]
    assert max(last.latencies_ms) == max(each.latencies_ms) > 0
    assert "of the goal" in cut_last.note
    assert min(floor.latencies_ms) > 0
