"""The benchmark of revocations measures what it says. What it comes to says nothing here."""

from __future__ import annotations

import asyncio

from benchmarks.revocation import measured


def test_every_socket_and_every_stream_is_timed_until_it_is_closed_for_that_reason() -> None:
    sockets, streams, floor = asyncio.run(measured(2, 2, 2, 1))
    assert [len(row.latencies_ms) for row in (sockets, streams, floor)] == [4, 2, 4]
    assert min(*sockets.latencies_ms, *streams.latencies_ms) >= 0
    assert min(floor.latencies_ms) > 0
    assert "of the goal" in sockets.note
