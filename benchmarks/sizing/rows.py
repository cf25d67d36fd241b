"""The rows of the table: what is measured, in which order and unit. docs/operations/scaling.md has the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import machine

SERVICES = ("control", "runtime", "projector", "khala_gateway")
_NAMES = {"khala_gateway": "khala-gateway", "postgres": "PostgreSQL", "archive": "archive"}

_IDLE = {
    f"{service}.idle_{what}": row
    for service in SERVICES
    for what, row in (("mib", ("an idle replica, memory", "MiB")), ("core", ("an idle replica, CPU", "% of a core")))
}
_ROWS = {
    **_IDLE,
    **{f"{service}.used_mib": ("a replica after all of this, memory", "MiB") for service in SERVICES},
    "control.call": ("a signed-in call, CPU", "µs"),
    "control.sync_token": ("a sync token, CPU", "µs"),
    "control.worker_token": ("a worker token, CPU", "µs"),
    "control.run": ("a run without output, CPU", "ms"),
    "runtime.worker_mib": ("100 attached workers that wait, memory", "MiB"),
    "runtime.worker_core": ("100 attached workers that wait, CPU", "% of a core"),
    "runtime.run": ("a run without output, CPU", "ms"),
    "runtime.event": ("an event in an append of its own, CPU", "µs"),
    "runtime.batched_event": ("an event among many in an append, CPU", "µs"),
    "projector.run": ("a run without output, CPU", "ms"),
    "projector.event": ("an event that comes alone, CPU", "µs"),
    "projector.batched_event": ("an event among many, CPU", "µs"),
    "khala_gateway.connection_mib": ("1,000 connections that wait, memory", "MiB"),
    "khala_gateway.connection_core": ("1,000 connections that wait, CPU", "% of a core"),
    "khala_gateway.delivery": ("an event that is delivered to one connection, CPU", "µs"),
    "postgres.run": ("a run without output, CPU", "ms"),
    "postgres.event": ("an event in an append of its own, CPU", "µs"),
    "postgres.batched_event": ("an event among many in an append, CPU", "µs"),
    "postgres.run_bytes": ("a run without output, disk", "bytes"),
    "postgres.event_bytes": ("an event, disk", "bytes"),
    "postgres.million_gib": ("a million events, disk", "GiB"),
    "postgres.event_wal": ("an event in an append of its own, write-ahead log", "bytes"),
    "postgres.batched_event_wal": ("an event among many, write-ahead log", "bytes"),
    "archive.event": ("an event, in the bucket", "bytes"),
}
"""Name -> description and unit."""


@dataclass(frozen=True)
class Measured:
    """A figure. `beside`: its floor or peer of the same run."""

    value: float
    beside: str = ""


Figures = Mapping[str, Measured]
"""Name of a row -> its figure."""


def label(name: str) -> tuple[str, str]:
    """The service of a row, and the row's description."""
    service = name.partition(".")[0]
    return _NAMES.get(service, service), _ROWS[name][0]


def shown(name: str, measured: Measured) -> str:
    """A figure with its unit, in three digits: it is not more accurate than that."""
    value = measured.value
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} {_ROWS[name][1]}"


def as_table(figures: Figures) -> str:
    """The measured rows, in the form of the page."""
    lines = ["| service | what | costs | beside it |", "|---|---|---|---|"]
    for name in _ROWS:
        if name in figures:
            cells = (*label(name), shown(name, figures[name]), figures[name].beside)
            lines.append(("| " + " | ".join(cells) + " |").replace("|  |", "| |"))
    return "\n".join(lines)


def all_rows() -> list[tuple[str, str]]:
    """Service and subject of every row, in order."""
    return [label(name) for name in _ROWS]


def write_json(figures: Figures, path: Path) -> None:
    """The figures under their names, with their units."""
    rows = [{"name": name, "unit": _ROWS[name][1], **vars(measured)} for name, measured in figures.items()]
    path.write_text(json.dumps({"title": "sizing", "machine": machine(), "rows": rows}, indent=1) + "\n")
