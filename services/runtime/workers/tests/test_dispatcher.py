"""Who gets a waiting run when workers leave at that very moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from oa_runlog.commands import AssignRun
from oa_runlog.state import WorkerStatus
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.dispatcher import Dispatcher
from services.runtime.workers.app.ports import QueueRules, WaitingRun, WorkerRecord
from services.runtime.workers.limits import WorkerLimits

RULES = QueueRules([])


class OneLog:
    """Takes note of what is assigned."""

    def __init__(self) -> None:
        self.assigned: list[AssignRun] = []

    async def do(self, command: AssignRun) -> None:
        self.assigned.append(command)


class OneRun:
    """One run waits, and something happens while the database is asked for it."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    async def waiting_runs(self, *_asked: object) -> list[WaitingRun]:
        self._meanwhile()
        return [WaitingRun("run_1", "usr_1")]


class Attached:
    """The workers of a replica."""

    def __init__(self, *attachments: Attachment) -> None:
        self.by_id = {attachment.worker.worker_id: attachment for attachment in attachments}


def attachment(worker_id: str) -> Attachment:
    worker = WorkerRecord(worker_id, "sva_1", "org_1", "n", ("exec",), 1, WorkerStatus.RUNNING)
    return Attachment(worker, "att_1", time.monotonic(), 8)


def drains(one: Attachment) -> None:
    one.status = WorkerStatus.DRAINING


@pytest.mark.parametrize("leaves", [Attachment.end, drains, lambda _: None], ids=["left", "drains", "stays"])
async def test_a_worker_that_leaves_while_the_database_is_asked_gets_nothing(
    leaves: Callable[[Attachment], None],
) -> None:
    log, worker = OneLog(), attachment("wrk_1")
    dispatcher = Dispatcher(
        cast("Any", log),
        cast("Any", Attached(worker)),
        cast("Any", OneRun(lambda: leaves(worker))),
        WorkerLimits(),
        RULES,
    )
    await dispatcher.dispatch()
    stays = not worker.is_over and worker.status is WorkerStatus.RUNNING
    assert log.assigned == ([AssignRun("run_1", "wrk_1")] if stays else [])


async def test_a_worker_that_left_while_another_was_served_gets_nothing() -> None:
    log, first, second = OneLog(), attachment("wrk_1"), attachment("wrk_2")
    dispatcher = Dispatcher(
        cast("Any", log), cast("Any", Attached(first, second)), cast("Any", OneRun(second.end)), WorkerLimits(), RULES
    )
    await dispatcher.dispatch()
    assert log.assigned == [AssignRun("run_1", "wrk_1")]
