"""The third part of the schedules."""

import pytest

from tests.simulation.parts import chunks, run_schedules


@pytest.mark.parametrize("seeds", chunks(3), ids=str)
def test_schedules_hold(seeds: range) -> None:
    run_schedules(seeds)
