"""Histories of workers: what happened to one, and its status after each. What it did not take has no status.

A file is a header and one line for each walk: `{"shows": …, "steps": [["attach", "starting"], ["silence", null], …]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from oa_runlog.workers import WorkerStatus, WorkerTrigger, next_worker_status
from tests.contract.histories.check import HistoryChanged

FORMAT = 1

_WALKS = (
    ("a worker that never attached does nothing else first", "heartbeat drain goodbye silence attach"),
    (
        "works, goes, and comes again",
        "attach heartbeat heartbeat goodbye heartbeat drain goodbye silence attach",
    ),
    ("is lost, and comes back", "attach heartbeat silence heartbeat drain goodbye silence attach heartbeat"),
    ("reconnects before, during and at the end of its work", "attach attach heartbeat attach heartbeat drain attach"),
    ("drains, says so twice, and goes", "attach heartbeat drain drain heartbeat goodbye"),
    ("drains before it has worked, and is lost", "attach drain silence"),
    ("goes before it has worked", "attach goodbye"),
    ("is lost before it has worked", "attach silence"),
)


@dataclass(frozen=True, slots=True)
class Walk:
    """What happened to one worker: each trigger, with the status after it; None where it was refused."""

    shows: str
    steps: tuple[tuple[WorkerTrigger, WorkerStatus | None], ...]


def walks() -> list[Walk]:
    """The walks that are recorded of a release, as today's table has them."""
    return [_walk(shows, [WorkerTrigger(word) for word in words.split()]) for shows, words in _WALKS]


def _walk(shows: str, happened: Iterable[WorkerTrigger]) -> Walk:
    status: WorkerStatus | None = None
    steps = []
    for what in happened:
        after = next_worker_status(status, what)
        steps.append((what, after))
        status = after or status
    return Walk(shows, tuple(steps))


def check(walk: Walk) -> None:
    """Go `walk` again. Raises HistoryChanged where today's table leads elsewhere."""
    today = _walk(walk.shows, [what for what, _ in walk.steps])
    for number, (now, then) in enumerate(zip(today.steps, walk.steps, strict=True), start=1):
        if now != then:
            raise HistoryChanged(f"{walk.shows}, step {number}, {then[0]}: recorded {then[1]}, today {now[1]}")


def dump(release: str, recorded: Iterable[Walk]) -> str:
    """The text of the file."""
    header = {"line": "header", "format": FORMAT, "release": release}
    lines = [header, *({"line": "worker", "shows": walk.shows, "steps": walk.steps} for walk in recorded)]
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def load(text: str) -> tuple[str, list[Walk]]:
    """The release and the walks in a file's text. Raises ValueError or KeyError for what is no such file."""
    header, *lines = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    if (header["line"], header["format"]) != ("header", FORMAT):
        raise ValueError(f"these are not workers of format {FORMAT}")
    return header["release"], [Walk(line["shows"], tuple(map(_step, line["steps"]))) for line in lines]


def _step(step: tuple[str, str | None]) -> tuple[WorkerTrigger, WorkerStatus | None]:
    what, status = step
    return WorkerTrigger(what), WorkerStatus(status) if status is not None else None
