"""Measurements of tests, at the end of a run of pytest: each `record_property(MEASURED, line)`. They fail no test."""

from __future__ import annotations

import pytest

MEASURED = "measured"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each measurement, in the order of the tests."""
    everything = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [one for one in everything if isinstance(one, pytest.TestReport) and one.when == "call"]
    lines = [str(value) for report in calls for name, value in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
