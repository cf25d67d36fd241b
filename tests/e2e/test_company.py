"""What a company does on its first day, by `oa` alone: its page of the tutorial, followed as it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from oa_testing.stack import StackUnderTest
from oa_testing.suite.measured import MEASURED
from tests.e2e.pages import follow

pytestmark = pytest.mark.long

CLOSED = ("connection_closing", "token_revoked")


def removed_at(log: Path) -> datetime:
    """When the member was removed, by the export that the page writes."""
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    [moment] = [event["time"] for event in events if event.get("action") == "member.removed"]
    return datetime.fromisoformat(moment)


def closed_since(log: Path, moment: datetime) -> datetime:
    """When the gateway closed the first socket after that moment because of a revocation."""
    said = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.startswith("{")]
    closed = [each["timestamp"] for each in said if (each.get("event"), each.get("reason")) == CLOSED]
    return min(when for when in map(datetime.fromisoformat, closed) if when >= moment)


async def test_the_first_day_of_a_company(
    stack: StackUnderTest, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    said = await follow("company.md", stack, tmp_path)
    assert "the chain holds" in said
    removed = removed_at(tmp_path / "audit.jsonl")
    took = closed_since(stack.home / "logs" / "khala_gateway.log", removed) - removed
    record_property(
        MEASURED, f"a removed member's socket closed after {took.total_seconds() * 1000:.0f} ms (goal: 500)"
    )
