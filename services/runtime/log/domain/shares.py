"""How many runs may run at a time: of an org, of a person in it, with a common key, and of a thread; and how many
children a run may have. Pure."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from oa_runlog.authority.commands import AssignRun, Command, CreateRun
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import QueuePolicy, ThreadPolicy
from oa_runlog.state import RunState

UNBOUNDED = sys.maxsize


class ShareKind(enum.StrEnum):
    """What the runs of a share have in common, besides their org, and which of them count.

    KEY: runs that a worker holds. ORG and PERSON: the same, but of a run and those below it only the lowest, so that a
    run that waits for its child leaves its place to the child. THREAD: runs that were started and have not ended.
    OPEN_THREAD: runs that have not ended. CHILDREN: all runs that a run has started.
    """

    ORG = "org"
    PERSON = "person"
    KEY = "key"
    THREAD = "thread"
    OPEN_THREAD = "open_thread"
    CHILDREN = "children"


_OF_FAMILIES = frozenset({ShareKind.ORG, ShareKind.PERSON})
"""Shares in which a run does not count in addition to those below it."""


class Share(NamedTuple):
    """Runs of an org that count together. `name` is the person, key, thread or parent; empty for all of the org."""

    kind: ShareKind
    org_id: str
    name: str = ""


def bounds_of(command: Command, runs: Mapping[str, RunState], limits: RunLimits) -> dict[Share, int]:
    """The shares that grow with the command, and how many runs each may have then."""
    match command:
        case AssignRun(run_id) if run := runs.get(run_id):
            # A run that is started again has had its turn in its thread, and keeps it.
            return _of_start(run.org_id, run.user_id, run.queue, run.thread_id if run.attempt == 0 else "", limits)
        case CreateRun():
            return _of_creation(command)
        case _:
            return {}


def _of_creation(command: CreateRun) -> dict[Share, int]:
    bounds: dict[Share, int] = {}
    if command.spec.thread_policy:
        bound = 1 if command.spec.thread_policy is ThreadPolicy.REJECT else UNBOUNDED
        bounds[Share(ShareKind.OPEN_THREAD, command.org_id, command.spec.thread_id)] = bound
    if command.parent_run_id and command.max_children is not None:
        bounds[Share(ShareKind.CHILDREN, command.org_id, command.parent_run_id)] = command.max_children
    return bounds


def _of_start(org_id: str, user_id: str, queue: QueuePolicy, thread_id: str, limits: RunLimits) -> dict[Share, int]:
    """`thread_id`: the thread in which the run has to have its turn; empty for none."""
    bounds: dict[Share, int] = {}
    if limits.max_running_per_org:
        bounds[Share(ShareKind.ORG, org_id)] = limits.max_running_per_org
    if limits.max_running_per_person:
        bounds[Share(ShareKind.PERSON, org_id, user_id)] = limits.max_running_per_person
    if queue.concurrency is not None:
        bounds[Share(ShareKind.KEY, org_id, queue.concurrency.key)] = queue.concurrency.limit
    if thread_id:
        bounds[Share(ShareKind.THREAD, org_id, thread_id)] = 1
    return bounds


def without_families(bounds: Mapping[Share, int]) -> dict[Share, int]:
    """The shares that grow even if the run takes the place of another one of its family."""
    return {share: bound for share, bound in bounds.items() if share.kind not in _OF_FAMILIES}


def parents_of(commands: Sequence[Command], runs: Mapping[str, RunState]) -> dict[str, str]:
    """Each run that the commands give away -> its parent; empty for a run without one."""
    created = {command.run_id: command.parent_run_id for command in commands if isinstance(command, CreateRun)}
    given = [command.run_id for command in commands if isinstance(command, AssignRun)]
    parents = created | {run_id: run.parent_run_id for run_id, run in runs.items()}
    return {run_id: parents[run_id] for run_id in given if run_id in parents}


def is_of_families(shares: Iterable[Share]) -> bool:
    """Whether a run may take the place of another one of its family in one of these shares."""
    return any(share.kind in _OF_FAMILIES for share in shares)


def shares_to_grow(commands: Iterable[Command], runs: Mapping[str, RunState], limits: RunLimits) -> list[Share]:
    """All shares that grow with the commands, some of which may create the runs of others."""
    shares: dict[Share, int] = {}
    created: dict[str, CreateRun] = {}
    for command in commands:
        shares |= bounds_of(command, runs, limits)
        if isinstance(command, CreateRun):
            created[command.run_id] = command
        elif isinstance(command, AssignRun) and (create := created.get(command.run_id)):
            spec = create.spec
            thread_id = spec.thread_id if spec.thread_policy else ""
            shares |= _of_start(create.org_id, create.user_id, spec.queue, thread_id, limits)
    return list(shares)
