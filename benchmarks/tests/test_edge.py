"""The benchmark of the edge measures what it says. What it comes to says nothing here."""

from __future__ import annotations

import asyncio

from benchmarks.edge import FLOOR, measured


def test_every_kind_of_call_is_answered_as_it_is_meant_and_counted() -> None:
    rows = {row.subject: row for row in asyncio.run(measured(callers=2, calls=40, rounds=2))}
    assert {"GetCaller", "GetRun, JSON", "GetRun, protobuf", "MintSyncToken", "a wrong token", FLOOR} < set(rows)
    assert {len(row.latencies_ms) for name, row in rows.items() if name not in ("sign-in", "refresh")} == {80}
    assert [len(rows[name].latencies_ms) for name in ("sign-in", "refresh")] == [4, 4]
    assert all("x bare" in row.note for row in rows.values())
