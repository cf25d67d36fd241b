"""Clients are let in, stay, and are brought up to date. What it comes to says nothing here."""

from __future__ import annotations

import asyncio

from benchmarks.khala_connect import measured


def test_every_row_is_measured() -> None:
    rows = asyncio.run(measured(5, 4, 3, idle_s=0.1))
    assert [(row.subject, row.setting, row.events) for row in rows] == [
        ("bare Ed25519", "check a signature", 5),
        ("websockets", "handshake alone", 5),
        ("khala_gateway", "connect and subscribe", 5),
        ("khala_gateway", "idle", 5),
        ("khala_gateway", "idle, with pings", 5),
        ("khala_gateway", "connect and subscribe, a topic each", 5),
        ("khala_gateway", "storm, 3 missed each", 4),
    ]
