"""How many runs may run at a time: of an org, of a person in it, and of what has a key in common. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from oa_runlog.commands import AssignRun, Command
from oa_runlog.decide import Limits
from oa_runlog.state import RunState


class ShareKind(enum.StrEnum):
    """What the runs of a share have in common, besides their org."""

    ORG = "org"
    PERSON = "person"
    KEY = "key"


class Share(NamedTuple):
    """Runs of an org that count together. `name` is the person or the key; empty for all of the org."""

    kind: ShareKind
    org_id: str
    name: str = ""


def bounds_of(run: RunState, limits: Limits) -> dict[Share, int]:
    """The shares that the run counts in and that are bounded: how many runs of each may run at a time."""
    bounds: dict[Share, int] = {}
    if limits.max_running_per_org:
        bounds[Share(ShareKind.ORG, run.org_id)] = limits.max_running_per_org
    if limits.max_running_per_person:
        bounds[Share(ShareKind.PERSON, run.org_id, run.user_id)] = limits.max_running_per_person
    if run.queue.concurrency is not None:
        bounds[Share(ShareKind.KEY, run.org_id, run.queue.concurrency.key)] = run.queue.concurrency.limit
    return bounds


def shares_to_grow(commands: Iterable[Command], runs: Mapping[str, RunState], limits: Limits) -> list[Share]:
    """The bounded shares of the runs that are to be given to workers."""
    assigned = (runs.get(command.run_id) for command in commands if isinstance(command, AssignRun))
    return list(dict.fromkeys(share for run in assigned if run is not None for share in bounds_of(run, limits)))
