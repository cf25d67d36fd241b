"""The benchmark of sign-in's timing measures what it says, and tells a difference. Its figures say nothing here."""

from __future__ import annotations

import asyncio
import random

import pytest

from benchmarks.measure import Figures
from benchmarks.sign_in_timing import Comparison, measured, verdict


def test_every_address_is_timed_as_often_as_any_other() -> None:
    starts, guesses, floor, control = asyncio.run(measured(2, 6, ["domains"]))
    assert [len(row.latencies_ms) for row in (starts, guesses, floor, control)] == [12, 12, 6, 12]
    assert min(*starts.latencies_ms, *guesses.latencies_ms, *control.latencies_ms) > 0


@pytest.mark.parametrize(
    ("first", "second", "share", "chance"),
    [
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], 0.0, 0.0495),
        ([2.0, 4.0, 6.0, 8.0], [1.0, 3.0, 5.0, 7.0], 0.625, 0.5637),
        ([1.0, 1.0, 2.0], [1.0, 2.0, 2.0], 1 / 3, 0.4561),
        ([1.0, 1.0], [1.0, 1.0], 0.5, 1.0),
    ],
)
def test_the_comparison_gives_the_published_values(
    first: list[float], second: list[float], share: float, chance: float
) -> None:
    """Those of scipy.stats.mannwhitneyu(first, second, use_continuity=False, method="asymptotic")."""
    found = Comparison.of(first, second)
    assert found.share == pytest.approx(share)
    assert found.chance == pytest.approx(chance, abs=1e-4)


@pytest.mark.parametrize(("later_ms", "differs"), [(0.0, False), (0.2, True)])
def test_a_fifth_of_a_millisecond_is_noticed_and_chance_is_not(later_ms: float, differs: bool) -> None:
    chance = random.Random(1)
    known, unknown = ([3 + chance.expovariate(1) + more for _ in range(4000)] for more in (later_ms, 0.0))
    assert Comparison.of(known, unknown).differs is differs


def test_the_verdict_is_that_of_all_rows_but_the_control() -> None:
    rows = [
        Figures("StartChallenge", "sign-up: open", 10, 1, note="can't be told apart"),
        Figures("a code of nobody (control)", "sign-up: open", 10, 1, note="they differ"),
    ]
    assert verdict(rows) == "Known and unknown addresses can't be told apart by time, in 10 calls."
    rows.append(Figures("VerifyChallenge", "sign-up: open", 10, 1, note="they differ"))
    assert verdict(rows) == "A stranger can tell who has an account, by: VerifyChallenge (sign-up: open)."
