"""CPU time and memory of processes, measured from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil

MIB = 1 << 20


@dataclass(frozen=True)
class Subject:
    """A set of processes, which may come and go below the first one."""

    processes: Callable[[], Iterable[psutil.Process]]

    def cpu_s(self) -> float:
        """CPU time since its start, kernel included, with that of processes below it that have ended."""
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_bytes(self) -> int:
        """Resident memory."""
        return sum(process.memory_info().rss for process in self.processes())


def process(pid: int) -> Subject:
    """One process."""
    one = psutil.Process(pid)
    return Subject(lambda: (one,))


class Meters:
    """The subjects that are measured, and their cost when idle."""

    def __init__(self, subjects: Mapping[str, Subject]) -> None:
        self.subjects = subjects
        self.idle_cores: dict[str, float] = dict.fromkeys(subjects, 0.0)
        """Share of a core that each subject uses when idle; not counted as the cost of anything."""

    def span(self) -> Span:
        """Begin to measure."""
        return Span(self)


class Span:
    """The use of all subjects since a moment."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._began = time.monotonic()
        self._cpu_s = {name: subject.cpu_s() for name, subject in meters.subjects.items()}

    @property
    def seconds(self) -> float:
        """Seconds since the span began."""
        return time.monotonic() - self._began

    def cpu_s(self) -> dict[str, float]:
        """CPU time of each subject, without its idle use. Noise can make the difference negative: then it is 0."""
        seconds = self.seconds
        used = {name: subject.cpu_s() - self._cpu_s[name] for name, subject in self._meters.subjects.items()}
        return {name: max(0.0, cpu_s - self._meters.idle_cores[name] * seconds) for name, cpu_s in used.items()}

    def cores(self) -> dict[str, float]:
        """The same as shares of a core."""
        seconds = self.seconds
        return {name: cpu_s / seconds for name, cpu_s in self.cpu_s().items()}
