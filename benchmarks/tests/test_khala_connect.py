"""Clients are let in, stay, and are brought up to date. What it comes to says nothing here."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from benchmarks.khala_connect import measured

ROWS = [
    ("bare Ed25519", "check a signature", 5),
    ("websockets", "handshake alone", 5),
    ("khala_gateway", "connect and subscribe", 5),
    ("khala_gateway", "connect and subscribe, a topic each", 5),
    ("khala_gateway", "storm, 3 missed each", 4),
    ("bare send()", "to each idle client", 6),
    ("khala_gateway", "idle", 6),
    ("khala_gateway", "idle, with pings", 5),
]
PEER = [("Centrifuge", "connect and subscribe", 5), ("Centrifuge", "storm, 3 missed each", 4)]


@pytest.mark.parametrize("has_go", [True, False])
def test_every_row_is_measured(has_go: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_go:
        monkeypatch.setenv("PATH", "")
    rows = asyncio.run(measured(5, 4, 3, 6, idle_s=0.1))
    found = [(row.subject, row.setting, row.events) for row in rows]
    assert [row for row in found if row not in PEER] == ROWS
    if shutil.which("go") is None:
        assert not set(found) & set(PEER)
