"""How long the tests of each room took, at the end of a run of pytest; loaded from the root `conftest.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

_DEPTH = 2
"""A room is a folder of `libs`, `services`, `apps` or `tests`; `benchmarks` is one itself."""


def room_of(path: str) -> str:
    """The room of a test's file, relative to the checkout."""
    folders = path.split("/")[:-1]
    return "/".join(folders[: _DEPTH if folders[:1] != ["benchmarks"] else 1])


def seconds_by_room(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """Sum up the seconds of each room, set-up and tear-down included."""
    seconds: Counter[str] = Counter()
    for report in reports:
        seconds[room_of(report.nodeid.partition("::")[0])] += report.duration  # type: ignore[assignment]
    return seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rooms, the slowest first. With several workers, the sum is more than the time that has passed."""
    everything = (report for reports in terminalreporter.stats.values() for report in reports)
    tests = {id(report): report for report in everything if isinstance(report, pytest.TestReport)}
    seconds = seconds_by_room(tests.values())
    if not seconds:
        return
    terminalreporter.section("seconds by room")
    for room, spent in seconds.most_common():
        terminalreporter.line(f"{spent:8.1f}  {room}")
    terminalreporter.line(f"{sum(seconds.values()):8.1f}  all")
