"""A short soak, with kills; and what counts as growth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from oa_platform.config.callers import SERVICES
from tests.soak.campaign import soaked
from tests.soak.growth import HANDLES, MEMORY_BYTES, MIN_SAMPLES, Sample, complaints

MIB = 1 << 20
SIZE = 100 * MIB

pytestmark = pytest.mark.long


async def test_everybody_is_told_everything_whatever_is_killed(scratch: Path) -> None:
    asked = itertools.count()
    report = await soaked(scratch, lambda: next(asked) < 40, programs=4, seed=1, sample_s=0.2, kill_every_s=1.0)
    assert not report.complaints
    assert report.kills > 0
    assert report.tally.counts["runs"] == 40
    assert report.tally.counts["proved"] > 0
    assert report.tally.counts["visits"] > 40, "nobody left and came back"
    assert set(SERVICES) <= {name for name, _ in report.lives}


def _samples(
    memory: Sequence[float], descriptors: Sequence[float] = (20,), threads: Sequence[float] = (5,)
) -> list[Sample]:
    count = max(len(memory), len(descriptors), len(threads), MIN_SAMPLES)
    columns = [itertools.islice(itertools.cycle(map(int, column)), count) for column in (memory, descriptors, threads)]
    return [Sample(*values) for values in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    "memory",
    [
        [SIZE],
        [SIZE, SIZE + 20 * MIB],
        [*range(SIZE // 2, SIZE, MIB), *[SIZE] * 60],
        [SIZE] * 39 + [9 * SIZE],
        [SIZE + n * (MEMORY_BYTES // 40) for n in range(40)],
        range(2 * SIZE, SIZE, -MIB),
    ],
    ids=["flat", "up and down", "filled", "a peak", "little", "shrinking"],
)
def test_what_is_no_growth(memory: Sequence[float]) -> None:
    assert complaints(_samples(memory)) == []


def test_growth_of_memory_descriptors_or_threads_is_a_complaint() -> None:
    assert complaints(_samples([SIZE + n * MIB for n in range(80)])) == ["memory grew from 149.5 to 169.5 MiB"]
    assert complaints(_samples([SIZE], descriptors=range(80))) == ["descriptors grew from 50 to 70"]
    assert complaints(_samples([SIZE], threads=range(80))) == ["threads grew from 50 to 70"]


def test_the_limits_of_growth() -> None:
    late = MIN_SAMPLES // 4
    early = MIN_SAMPLES - late
    small, handles = 10 * MIB, 50
    for more, grows in ((0, False), (1, True)):
        found = complaints(_samples([small] * early + [small + MEMORY_BYTES + more] * late))
        assert bool(found) == grows, "of a small process by bytes"
        found = complaints(_samples([SIZE] * early + [SIZE + SIZE // 20 + more] * late))
        assert bool(found) == grows, "of a large one by its share"
        found = complaints(_samples([SIZE], [handles] * early + [handles + HANDLES + more] * late))
        assert bool(found) == grows


def test_with_few_samples_nothing_is_decided() -> None:
    grown = _samples([SIZE + n * MIB for n in range(MIN_SAMPLES)])
    assert complaints(grown)
    assert complaints(grown[:-1]) == []
