"""Whether a process grows, decided from samples of it. Pure.

The first half of the samples is left out, because caches and rings fill up then. What counts is the median of the last
quarter next to that of the third.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_SAMPLES = 40
"""With fewer samples nothing is decided."""
MEMORY_SHARE = 0.05
MEMORY_BYTES = 4 << 20
"""Memory has grown if it did by more than this share and by more than so many bytes."""
HANDLES = 5
"""Descriptors and threads may vary by so many."""


@dataclass(frozen=True)
class Sample:
    """A process at a moment. `memory_bytes` is what nobody shares with it (USS)."""

    memory_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """The medians of a value, early and late."""

    early: float
    late: float

    @property
    def by(self) -> float:
        """How much the value grew; negative if it shrank."""
        return self.late - self.early


def growth(values: Sequence[int]) -> Growth:
    """The growth of one value, in the order in which it was sampled. There must be 4 samples or more."""
    quarter = len(values) // 4
    return Growth(statistics.median(values[-2 * quarter : -quarter]), statistics.median(values[-quarter:]))


def complaints(samples: Sequence[Sample]) -> list[str]:
    """What grew, in words; empty if nothing did, or if there are too few samples to tell."""
    if len(samples) < MIN_SAMPLES:
        return []
    memory = growth([sample.memory_bytes for sample in samples])
    found = []
    if memory.by > max(MEMORY_BYTES, MEMORY_SHARE * memory.early):
        found.append(f"memory grew from {memory.early / (1 << 20):.1f} to {memory.late / (1 << 20):.1f} MiB")
    for name, values in (
        ("descriptors", [sample.descriptors for sample in samples]),
        ("threads", [sample.threads for sample in samples]),
    ):
        handles = growth(values)
        if handles.by > HANDLES:
            found.append(f"{name} grew from {handles.early:.0f} to {handles.late:.0f}")
    return found
