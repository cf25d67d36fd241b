"""Who catches a mutation: the simulation, after so many seeds, or the tests of the room in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation
from tests.simulation.schedule import SimulationFailure, run_schedule

VARIABLE = "OA_TESTS_MUTATION"
_ROOT = Path(__file__).parents[2]
_TESTS_FAILED = 1


@dataclass(frozen=True)
class Caught:
    """`by` whom, after `seeds` schedules; empty when by nobody."""

    by: str
    seeds: int
    why: str = ""


def hunt(mutation: Mutation, seeds: range) -> Caught:
    """Applies the mutation and looks who notices."""
    with mutation.applied():
        for tried, seed in enumerate(seeds, 1):
            try:
                run_schedule(seed)
            except SimulationFailure as failure:
                return Caught("simulation", tried, str(failure.__cause__))
    if mutation.tests and (failed := _failed(mutation)):
        return Caught(mutation.tests, len(seeds), failed)
    return Caught("", len(seeds))


def hunt_timed(name: str, seeds: range) -> tuple[str, Caught, float]:
    """`hunt` of the mutation of this name, with the name and the seconds that it took."""
    began = time.monotonic()
    return name, hunt(MUTATIONS[name], seeds), time.monotonic() - began


def _failed(mutation: Mutation) -> str:
    """The first test of the room that fails with the mutation; empty when all pass."""
    options = ["-q", "-x", "-p", "tests.mutations.plugin", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *mutation.tests.split()],
        cwd=_ROOT,
        env={**os.environ, VARIABLE: mutation.name},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode not in (0, _TESTS_FAILED):
        raise RuntimeError(f"the tests of {mutation.name} could not run:\n{ran.stdout}{ran.stderr}")
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].removeprefix("FAILED ") if failed else ""
