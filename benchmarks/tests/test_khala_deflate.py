"""The same events are delivered in both ways, and how many bytes they come to doesn't depend on the machine."""

from __future__ import annotations

import asyncio

from benchmarks.khala_deflate import measured


def test_every_row_is_measured_and_compression_saves_bytes() -> None:
    plain, deflated = asyncio.run(measured(3, 4, sizes=[2_000]))
    assert (plain.events, deflated.events) == (12, 12)
    sent = [int(row.note.partition(" ")[0].replace(",", "")) for row in (plain, deflated)]
    assert sent[1] < 0.8 * sent[0]
