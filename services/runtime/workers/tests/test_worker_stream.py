"""What ends a worker's stream is answered like what ends any call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from oa_base.identity import Principal, PrincipalKind
from oa_platform.auth.identity import WorkerCaller, set_caller
from oa_runlog.decide import Limits
from oa_runlog.state import WorkerStatus
from openagents.runtime.v1 import worker_service_pb2 as pb
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import WorkerRecord
from services.runtime.workers.domain.notices import Hello
from services.runtime.workers.door import WorkerApi
from services.runtime.workers.limits import WorkerLimits

WORKER = WorkerRecord(
    worker_id="wrk_1",
    service_account_id="sva_1",
    org_id="org_1",
    name="n",
    adapters=("exec",),
    max_concurrent_runs=1,
    status=WorkerStatus.STARTING,
)


class BrokenWorkers:
    """Attaches, and breaks when the worker drains."""

    limits = WorkerLimits()

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def attach(self, _principal: Principal, _hello: Hello) -> Attachment:
        return Attachment(WORKER, "att_1", 0.0, 8)

    async def drain(self, _attachment: Attachment) -> None:
        raise self._error

    def detach(self, attachment: Attachment) -> None:
        attachment.end()


async def _requests() -> AsyncIterator[pb.AttachRequest]:
    yield pb.AttachRequest(attach=pb.WorkerHello(name="n", adapters=["exec"], max_concurrent_runs=1))
    yield pb.AttachRequest(drain=pb.WorkerDrain())


@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncpg.PostgresConnectionError("gone")], ids=repr)
async def test_what_goes_wrong_reaches_who_answers_the_call(error: Exception) -> None:
    """So a defect is logged with its traceback, and a database that went away is `unavailable`, not `internal`."""
    set_caller(WorkerCaller(Principal(PrincipalKind.WORKER, "sva_1", "org_1")))
    api = WorkerApi(cast("Any", BrokenWorkers(error)), cast("Any", None), Limits())
    answers = api.Attach(_requests(), None)
    assert (await anext(answers)).WhichOneof("message") == "attached"
    with pytest.raises(type(error)) as caught:
        await anext(answers)
    assert caught.value is error
