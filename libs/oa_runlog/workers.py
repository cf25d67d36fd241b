"""The state machine of a worker, as a table. A transition that is not in the table is invalid."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class WorkerStatus(enum.StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"


class WorkerTrigger(enum.StrEnum):
    """What happens to a worker."""

    ATTACH = "attach"
    HEARTBEAT = "heartbeat"
    DRAIN = "drain"
    GOODBYE = "goodbye"
    SILENCE = "silence"


_STARTING, _WORKING, _DRAINING = WorkerStatus.STARTING, WorkerStatus.RUNNING, WorkerStatus.DRAINING

WORKER_TRANSITIONS: Mapping[tuple[WorkerStatus | None, WorkerTrigger], WorkerStatus] = MappingProxyType(
    {
        (None, WorkerTrigger.ATTACH): _STARTING,
        (_STARTING, WorkerTrigger.ATTACH): _STARTING,
        (_STARTING, WorkerTrigger.HEARTBEAT): _WORKING,
        (_STARTING, WorkerTrigger.DRAIN): _DRAINING,
        (_STARTING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_STARTING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        # Reconnected to another replica, or to the same one before its silence was noticed.
        (_WORKING, WorkerTrigger.ATTACH): _STARTING,
        (_WORKING, WorkerTrigger.HEARTBEAT): _WORKING,
        (_WORKING, WorkerTrigger.DRAIN): _DRAINING,
        (_WORKING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_WORKING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        (_DRAINING, WorkerTrigger.ATTACH): _STARTING,
        (_DRAINING, WorkerTrigger.HEARTBEAT): _DRAINING,
        (_DRAINING, WorkerTrigger.DRAIN): _DRAINING,
        (_DRAINING, WorkerTrigger.GOODBYE): WorkerStatus.STOPPED,
        (_DRAINING, WorkerTrigger.SILENCE): WorkerStatus.LOST,
        # A process that comes back after all: its leases are gone, but it may take new ones.
        (WorkerStatus.LOST, WorkerTrigger.ATTACH): _STARTING,
        (WorkerStatus.STOPPED, WorkerTrigger.ATTACH): _STARTING,
    }
)
"""Status and trigger -> the next status. None is the status of a worker that was never seen."""


def next_worker_status(status: WorkerStatus | None, what: WorkerTrigger) -> WorkerStatus | None:
    """Return the worker's status after `what`, None when the table does not allow it."""
    return WORKER_TRANSITIONS.get((status, what))
