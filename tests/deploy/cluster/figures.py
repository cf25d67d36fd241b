"""What users notice of rolls, as figures. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

WIDEST = 60
"""How many characters the longest bar of a histogram has."""
_SHARES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True)
class Span:
    """From one moment to a later one, in seconds of the same clock."""

    began_s: float
    ended_s: float

    @property
    def lasted_ms(self) -> float:
        """How long it was."""
        return (self.ended_s - self.began_s) * 1000

    def holds(self, moment_s: float) -> bool:
        """Whether a moment is in it."""
        return self.began_s <= moment_s <= self.ended_s


@dataclass(frozen=True)
class Append:
    """Something that a run's command wrote at `written_s`, and that the log had at `recorded_s`."""

    written_s: float
    recorded_s: float

    @property
    def waited_ms(self) -> float:
        """From the one to the other."""
        return (self.recorded_s - self.written_s) * 1000


def percentile(values: Iterable[float], share: float) -> float:
    """What that share (0 to 1) of the values stays within, by nearest rank; not a number when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def quantiles(name: str, values_ms: Sequence[float]) -> str:
    """One line: how many there are, and what most of them stay within."""
    shown = [f"{label} {percentile(values_ms, share):.1f} ms" for label, share in _SHARES.items()]
    return f"{name}: " + ", ".join([*shown, f"of {len(values_ms)}"])


def per_second(moments_s: Iterable[float], began_s: float) -> dict[int, int]:
    """How many moments are in each second after `began_s`; seconds without any are not there."""
    return dict(sorted(Counter(int((moment_s - began_s) // 1) for moment_s in moments_s).items()))


def histogram(counts: dict[int, int]) -> Iterator[str]:
    """A line for each second that has something, with a bar. A bar is as long as the count, unless one is too long."""
    most = max(counts.values(), default=0)
    for second, count in counts.items():
        yield f"{second:6d} s  {'#' * max(1, min(count, count * WIDEST // most))} {count}"


@dataclass(frozen=True)
class Figures:
    """Of one campaign of rolls. `breaks`: from the end of a follower's connection until it had another one."""

    rolls: Sequence[Span]
    breaks: Sequence[Span]
    appends: Sequence[Append]

    def lines(self) -> Iterator[str]:
        """What is printed. An append belongs to a roll when it was written while one was under way."""
        rolling: list[float] = []
        still: list[float] = []
        for append in self.appends:
            part = rolling if any(roll.holds(append.written_s) for roll in self.rolls) else still
            part.append(append.waited_ms)
        yield quantiles("a roll", [roll.lasted_ms for roll in self.rolls])
        yield quantiles("an append between rolls", still)
        yield quantiles("an append during rolls", rolling)
        yield quantiles("a follower without a connection", [each.lasted_ms for each in self.breaks])
        for number, roll in enumerate(self.rolls, start=1):
            yield f"reconnections in roll {number}, by the second:"
            yield from histogram(
                per_second([each.ended_s for each in self.breaks if roll.holds(each.ended_s)], roll.began_s)
            )
