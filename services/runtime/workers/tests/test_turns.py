"""Who was served longest ago goes first."""

from __future__ import annotations

from services.runtime.workers.domain.turns import Turns


def test_who_is_served_goes_behind_all_others() -> None:
    turns = Turns()
    for person in ("anna", "ben", "anna"):
        turns.served(person)
    assert turns.marks["ben"] < turns.marks["anna"]
    assert "cleo" not in turns.marks


def test_only_so_many_people_are_remembered_and_the_first_to_be_forgotten_was_served_longest_ago() -> None:
    turns = Turns(max_people=2)
    for person in ("anna", "ben", "anna", "cleo"):
        turns.served(person)
    assert list(turns.marks) == ["anna", "cleo"]
