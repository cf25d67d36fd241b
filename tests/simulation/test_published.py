"""The schedules once more, with sources that publish frames for all gateways, over a server that nobody may trust."""

import pytest

from tests.simulation.__main__ import main
from tests.simulation.parts import run_published


def test_schedules_hold_whatever_the_server_does() -> None:
    seeds = range(100)
    outcomes = run_published(seeds)
    reached = frozenset[str]().union(*(outcome.seen for outcome in outcomes))
    assert {"frames_by_subject", "frames_on_stream"} <= reached
    assert sum(outcome.published for outcome in outcomes) > 10 * len(seeds)


def test_one_schedule_can_be_repeated_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", "14", "--seeds", "1", "--published"]) == 0
    assert "frames_by_subject" in capsys.readouterr().out
