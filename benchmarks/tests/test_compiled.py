"""What the benchmark of compiled modules is made of is there. It compiles for a minute, so it does not run here."""

from __future__ import annotations

from pathlib import Path

from benchmarks import compiled


def test_its_modules_are_there_and_a_copy_has_what_is_measured(tmp_path: Path) -> None:
    assert all((compiled.ROOT / module).is_file() for module in compiled.ALL)
    folder = compiled.copy_compiled(tmp_path / "copy", ())
    assert (folder / "benchmarks" / "khala_fanout.py").is_file()
    where, old, _ = compiled._BASE
    assert old in (folder / where).read_text("utf-8")


def test_a_row_has_the_median_the_range_and_how_it_compares() -> None:
    costs = {"one": {"as it is": [3e-6, 1e-6, 2e-6], "all compiled": [1e-6]}}
    notes = [row.note for row in compiled.rows_of(costs)]
    assert notes == ["2.00 (1.00 to 3.00) µs, 1.00", "1.00 (1.00 to 1.00) µs, 0.50"]
