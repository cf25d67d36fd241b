"""Sizing measures every row of the table that the page for operators has."""

from __future__ import annotations

import asyncio

from benchmarks.sizing.__main__ import PARTS, measure
from benchmarks.sizing.example import needed
from benchmarks.sizing.meter import Meters, Subject
from benchmarks.sizing.parts import Sizes
from benchmarks.sizing.rows import Measured, all_rows, as_table, label, shown

SMALL = Sizes(
    idle_s=0.5,
    calls=5,
    workers=2,
    workers_s=0.5,
    runs=3,
    talking=4,
    events_each=5,
    batched=100,
    connections=5,
    connections_s=0.5,
    deliveries_each=5,
    archived=50,
)


class Worked(Subject):
    """What has used as much CPU as was said."""

    used_s = 0.0

    def __init__(self) -> None:
        super().__init__(tuple)

    def cpu_s(self) -> float:
        return self.used_s


def test_what_a_service_costs_when_idle_is_the_cost_of_nothing_else() -> None:
    subject = Worked()
    meters = Meters({"runtime": subject})
    span = meters.span()
    subject.used_s = 5.0
    assert span.cpu_s() == {"runtime": 5.0}
    meters.idle_cores = {"runtime": 1_000_000.0}
    assert span.cpu_s() == {"runtime": 0.0}


def test_a_figure_has_three_digits_and_its_unit() -> None:
    assert [shown("postgres.event", Measured(value)) for value in (1234.6, 12.34, 1.234)] == [
        "1,235 µs",
        "12.3 µs",
        "1.23 µs",
    ]


def test_the_example_is_worked_from_the_figures() -> None:
    names = ("control.sync_token", "runtime.event", "projector.event", "khala_gateway.delivery", "postgres.event")
    figures = {name: Measured(100.0) for name in names}
    assert needed(figures) == ""
    text = needed(figures | {"postgres.event_bytes": Measured(1 << 10)})
    assert "| runtime | 1,000 events a second | 0.10 | 2 replicas |" in text
    assert "| khala-gateway | 20,000 deliveries a second | 2.00 | 4 replicas |" in text
    assert "| projector | 1,000 events a second | 0.10 | 2 replicas |" in text
    assert "82 GiB of disk a day" in text
    assert "longer ones" in needed({**figures, "projector.event": Measured(800.0), "postgres.event_bytes": Measured(1)})


def test_every_row_is_measured() -> None:
    figures = asyncio.run(measure(SMALL, list(PARTS)))
    assert {label(name) for name in figures} == set(all_rows())
    assert all(figures[name].value > 0 for name in figures if name.endswith(("idle_mib", "_bytes", "_wal")))
    assert len(as_table(figures).splitlines()) == len(figures) + 2
