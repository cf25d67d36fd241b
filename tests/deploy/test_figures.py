"""The figures of a roll are those of what happened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.deploy.figures import Appended, per_second, summary


def test_appends_are_told_apart_by_the_beginning_of_the_roll() -> None:
    appended = [Appended(at, took) for at, took in ((1, 10.0), (2, 20.0), (3, 30.0), (10, 100.0), (11, 300.0))]
    followers: Any = SimpleNamespace(reconnected_s=[], began_s=0.0)
    assert list(summary(appended, 10, followers)) == [
        "appends before the roll: 3 lines, p50 20 ms, p99 30 ms",
        "appends during the roll: 2 lines, p50 300 ms, p99 300 ms",
        "followers connected again: never",
    ]


def test_nothing_before_the_roll_has_no_figure() -> None:
    followers: Any = SimpleNamespace(reconnected_s=[102.5, 100.1, 102.9], began_s=100.0)
    first, _, last = summary([], 0, followers)
    assert first == "appends before the roll: 0 lines, p50 nan ms, p99 nan ms"
    assert last == "followers connected again: second 0: 1, second 2: 2"


def test_reconnects_are_counted_by_the_second() -> None:
    assert per_second([10.0, 10.9, 13.2], 10.0) == {0: 2, 3: 1}
