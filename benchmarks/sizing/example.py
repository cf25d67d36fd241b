"""The worked example of the page on scaling, computed from the figures: what to ask for."""

from __future__ import annotations

import math

from benchmarks.sizing.rows import Figures, label

EVENTS_PER_S = 50 * 20
"""Events a second of 50 runs at a time, with 20 a second each."""
PEOPLE = 1_000
"""Number of people, each of whom watches one run."""
_LOADS = {
    "control.sync_token": (PEOPLE // 240, "{:,} sync tokens a second: one a person in 4 minutes"),
    "runtime.event": (EVENTS_PER_S, "{:,} events a second"),
    "projector.event": (EVENTS_PER_S, "{:,} events a second"),
    "khala_gateway.delivery": (PEOPLE * 20, "{:,} deliveries a second"),
    "postgres.event": (EVENTS_PER_S, "{:,} events a second"),
}
"""Row -> how often it happens in a second, and the words for that. The rows are in microseconds of CPU each."""
_BUSY = 0.7
"""Maximum share of a core that a replica uses: the target of the autoscalers."""
_DAY_S = 86_400


def needed(figures: Figures) -> str:
    """A table of cores and replicas, and the growth of the disk; empty unless all of its rows were measured."""
    if not figures.keys() >= {*_LOADS, "postgres.event_bytes"}:
        return ""
    lines = ["| service | load | cores | ask for |", "|---|---|---|---|"]
    for row, (a_second, words) in _LOADS.items():
        cores = figures[row].value * a_second / 1e6
        lines.append(f"| {label(row)[0]} | {words.format(a_second)} | {cores:.2f} | {_asked(row, cores)} |")
    a_day_gib = figures["postgres.event_bytes"].value * EVENTS_PER_S * _DAY_S / (1 << 30)
    lines.append(f"| PostgreSQL | the same, day and night | | {a_day_gib:,.0f} GiB of disk a day |")
    return "\n".join(lines)


def _asked(row: str, cores: float) -> str:
    replicas = math.ceil(cores / _BUSY)
    if row.startswith("postgres."):
        return f"{max(2, replicas)} cores"
    if row.startswith("projector.") and replicas > 1:
        return "more than one core can give: fewer events, or longer ones"
    # One more than needed, so that one may be lost.
    return f"{replicas + 1} replicas"
