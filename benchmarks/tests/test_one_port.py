"""Its rows add up."""

from __future__ import annotations

from benchmarks.one_port import closed, spread


def test_each_connection_is_somebodys_and_none_is_lost_while_nobody_closes() -> None:
    first, second = map(int, spread(50).note.split(" and "))
    assert first + second == 50
    assert closed(1, 50).note == "0 of 50 reset"
    assert closed(2, 50).note.endswith(" of 50 reset")
