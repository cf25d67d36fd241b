"""The first part of the schedules, and what they reach."""

import pytest

from tests.simulation.parts import chunks, run_schedules
from tests.simulation.schedule import Outcome

Outcomes = dict[range, list[Outcome]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Of the schedules that ran, for each chunk of seeds."""
    return {}


@pytest.mark.parametrize("seeds", chunks(1), ids=str)
def test_schedules_hold(seeds: range, outcomes: Outcomes) -> None:
    outcomes[seeds] = run_schedules(seeds)


def test_half_of_the_schedules_have_nothing_that_would_hide_a_loss(outcomes: Outcomes) -> None:
    seeds = chunks(1)[0]
    alone = sum(outcome.unhelped for outcome in outcomes.get(seeds) or run_schedules(seeds))
    assert abs(alone / len(seeds) - 0.5) < 0.1


def test_the_schedules_reach_what_they_are_for(outcomes: Outcomes) -> None:
    missing = {
        "connection_closing draining",
        "connection_closing idle_timeout",
        "connection_closing reauth_required",
        "connection_closing slow_consumer",
        "connection_closing token_replayed",
        "connection_closing token_revoked",
        "lineage_ended epoch_mismatch",
        "replay_postponed unavailable",
        "topic_refused retention_floor_breach",
        "frames_dropped",
        "resync",
        "snapshot",
        "run_snapshot",
        "sign_in",
    }
    for seeds in chunks(1):
        for outcome in outcomes.get(seeds) or run_schedules(seeds):
            missing -= outcome.seen
            missing -= {one for one in ("resync", "snapshot", "run_snapshot", "sign_in") if getattr(outcome, f"{one}s")}
        if not missing:
            break
    assert missing == set()
