"""The common parts of benchmarks: percentiles, a table for people, and the figures as JSON.

Figures of one run belong together: a peer or a floor is always measured in the same run, on the same machine, with the
same durability, and is in the same table.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

Append = Callable[[int], Awaitable[int]]
"""Appends once and returns how many events were stored; the argument counts the calls of this producer, from 0."""
_LOOP = 2_000_000


@dataclass(frozen=True)
class Figures:
    """The figures of one series of one subject. Latencies are in milliseconds and belong to calls, not events."""

    subject: str
    setting: str
    events: int
    seconds: float
    latencies_ms: Sequence[float] = field(default=(), repr=False)
    note: str = ""

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0

    def percentile(self, q: float) -> float:
        """The latency that the share `q` (0 to 1) of the calls did not exceed, by nearest rank."""
        if not self.latencies_ms:
            return float("nan")
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def closed_loop(subject: str, setting: str, producers: Sequence[Append], seconds: float) -> Figures:
    """Have each producer append, wait for the answer and repeat, for `seconds` after a warm-up a tenth as long."""
    warm_until = time.perf_counter() + seconds / 10
    until = warm_until + seconds
    events = 0
    latencies: list[float] = []

    async def produce(append: Append) -> None:
        nonlocal events
        call = 0
        while (begin := time.perf_counter()) < until:
            stored = await append(call)
            end = time.perf_counter()
            call += 1
            if begin >= warm_until and end <= until:
                events += stored
                latencies.append((end - begin) * 1000)

    gc.collect()
    gc.disable()  # a collection here would be counted as the latency of an append
    try:
        await asyncio.gather(*(produce(append) for append in producers))
    finally:
        gc.enable()
    return Figures(subject, setting, events, seconds, latencies)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Stay on one core for a block; processes that are started in it stay there too."""
    with on_cores([core % (os.cpu_count() or 1)]):
        yield


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Stay on these cores for a block, where the system can do that and gives this process one of them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # a container may have only others
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, str | int]:
    """The machine of the measurement. The load averages (1, 5, 15 minutes) show its other work, and the speed of a bare
    loop how fast it and this interpreter are at the moment."""
    return {
        "python": platform.python_version(),
        "loop": f"{_loop_per_s() / 1e6:.0f} million a second",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _loop_per_s() -> float:
    """How often this interpreter adds two numbers in a second of CPU time."""
    began, total = time.process_time(), 0
    for number in range(_LOOP):
        total += number
    return _LOOP / (time.process_time() - began)


def report(title: str, rows: Sequence[Figures], json_path: Path | None = None) -> None:
    """Print the table; write the figures if asked."""
    here = machine()
    caption = ", ".join(f"{what} {value}" for what, value in here.items())
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in ("subject", "setting"):
        table.add_column(heading)
    for heading in ("events/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    for row in rows:
        quantiles = [row.percentile(q) for q in (0.5, 0.9, 0.99, 0.999)]
        shown = ["–" if value != value else f"{value:.2f}" for value in quantiles]
        table.add_row(row.subject, row.setting, f"{row.per_second:,.0f}", *shown, row.note)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if json_path is not None:
        figures = [_as_json(row) for row in rows]
        json_path.write_text(json.dumps({"title": title, "machine": here, "rows": figures}, indent=1) + "\n")


def _as_json(row: Figures) -> dict[str, object]:
    plain = {key: value for key, value in asdict(row).items() if key != "latencies_ms"}
    quantiles = {f"p{q * 100:g}_ms": row.percentile(q) for q in (0.5, 0.9, 0.99, 0.999) if row.latencies_ms}
    return plain | {"per_second": row.per_second} | quantiles
