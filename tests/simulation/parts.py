"""The schedules of the ordinary suite, in parts that its workers run side by side."""

from __future__ import annotations

from tests.simulation.schedule import Outcome, run_schedule

SCHEDULES = 10_000
"""How many `make test` runs, of the seeds from 0 on."""
PARTS = 4
"""Modules `test_schedules_1` and so on; a worker of the suite runs a whole module."""
_CHUNK = 250


def chunks(part: int) -> list[range]:
    """The seeds of a part (1 to `PARTS`), a test's worth at a time."""
    size = SCHEDULES // PARTS
    return [range(first, first + _CHUNK) for first in range((part - 1) * size, part * size, _CHUNK)]


def run_schedules(seeds: range) -> list[Outcome]:
    """Runs the schedules. Raises SimulationFailure at the first that fails."""
    return [run_schedule(seed) for seed in seeds]


def run_published(seeds: range) -> list[Outcome]:
    """The same with sources that publish frames."""
    return [run_schedule(seed, published=True) for seed in seeds]
