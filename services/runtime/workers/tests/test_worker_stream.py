"""What ends a worker's stream is answered like what ends any call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.identity import WorkerCaller, set_caller
from oa_platform.auth.revocations import Revocations
from oa_platform.system.clock import SystemClock
from oa_runlog.authority.limits import RunLimits
from oa_runlog.workers import WorkerStatus
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import worker_service_pb2 as pb
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.ports import WorkerRecord
from services.runtime.workers.domain.notices import DrainingNotice, HeldLease, Hello, LeaseLostNotice
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
    workers = cast("Any", BrokenWorkers(error))
    clock = SystemClock()
    api = WorkerApi(workers, cast("Any", None), RunLimits(), cast("Any", None), Revocations(clock), clock.now)
    answers = api.Attach(_requests(), None)
    assert (await anext(answers)).WhichOneof("message") == "attached"
    with pytest.raises(type(error)) as caught:
        await anext(answers)
    assert caught.value is error


class Quiet:
    """Attaches."""

    limits = WorkerLimits()

    async def attach(self, _principal: Principal, _hello: Hello) -> Attachment:
        return Attachment(WORKER, "att_1", 0.0, 8)

    def detach(self, attachment: Attachment) -> None:
        attachment.end()


def worker(account: str = "sva_1", holds_for_s: float = math.inf) -> WorkerCaller:
    return WorkerCaller(Principal(PrincipalKind.WORKER, account, "org_1"), holds_for_s)


class Stream:
    """A stream of a worker whose token holds for so long. A token names an account, and for how long it holds."""

    def __init__(self, holds_for_s: float, workers: Quiet | None = None) -> None:
        self.said: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()
        set_caller(worker(holds_for_s=holds_for_s))
        clock = SystemClock()
        quiet = cast("Any", workers or Quiet())
        api = WorkerApi(quiet, cast("Any", None), RunLimits(), self._authenticate, Revocations(clock), clock.now)
        self.answers = api.Attach(self._requests(), None)

    async def _authenticate(self, token: str) -> WorkerCaller:
        account, holds_for_s = token.split()
        return worker(account, float(holds_for_s))

    async def _requests(self) -> AsyncIterator[pb.AttachRequest]:
        yield pb.AttachRequest(attach=pb.WorkerHello(name="n", adapters=["exec"], max_concurrent_runs=1))
        while True:
            yield await self.said.get()

    def renew(self, token: str) -> None:
        self.said.put_nowait(pb.AttachRequest(renew=pb.WorkerRenewal(token=token)))

    async def refused(self) -> Refusal:
        with pytest.raises(Refusal) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await anext(self.answers)
        return caught.value


async def test_a_stream_ends_with_its_token() -> None:
    stream = Stream(holds_for_s=0.01)
    assert (await anext(stream.answers)).attached.takes_renewals
    assert (await stream.refused()).reason == "token_expired"


@pytest.mark.parametrize(
    ("token", "reason", "field"),
    [("sva_1 0.01", "token_expired", ""), ("sva_2 600", "owner_mismatch", "renew.token")],
    ids=["the newer one has expired", "it is somebody else's"],
)
async def test_another_token_takes_the_place_of_the_first(token: str, reason: str, field: str) -> None:
    stream = Stream(holds_for_s=600)
    await anext(stream.answers)
    stream.renew(token)
    refusal = await stream.refused()
    assert (refusal.reason, refusal.field) == (reason, field)


async def test_a_stream_that_is_over_does_not_wait_for_a_worker_that_takes_nothing() -> None:
    workers, attached = Quiet(), asyncio.Event()
    workers.limits = WorkerLimits(end_ms=10)

    async def served() -> None:
        stream = Stream(holds_for_s=0.01, workers=workers)
        await anext(stream.answers)
        attached.set()
        await asyncio.Event().wait()  # as gRPC does while the client takes nothing

    call = asyncio.create_task(served())
    async with asyncio.timeout(PATIENCE_S):
        await attached.wait()
        await asyncio.wait([call])
    assert call.cancelled()


async def test_a_stream_goes_on_when_another_token_has_come() -> None:
    attachment = Attachment(WORKER, "att_1", 0.0, 8)
    attachment.lasts(0.0)
    attachment.lasts(math.inf)
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not attachment.is_over
    attachment.lasts(0.0)
    assert await attachment.notices() == []
    assert isinstance(attachment.ended, Refusal)


class Told(Quiet):
    """Says of each lease in a heartbeat that it is lost."""

    def __init__(self) -> None:
        self.heartbeats = 0

    async def attach(self, _principal: Principal, _hello: Hello) -> Attachment:
        return Attachment(WORKER, "att_1", 0.0, 8, notices_limit=5)

    def heartbeat(self, attachment: Attachment, held: list[HeldLease]) -> None:
        self.heartbeats += 1
        for one in held:
            attachment.say(LeaseLostNotice(one.run_id, one.lease_epoch))


@pytest.mark.parametrize("batched", [False, True])
async def test_a_worker_that_does_not_read_is_not_read_either(batched: bool) -> None:
    workers = Told()
    stream = Stream(holds_for_s=600, workers=workers)
    await anext(stream.answers)
    held = [pb.HeldLease(run_id=f"run_01JD8V000000000000000000{number:02}", lease_epoch=1) for number in range(3)]
    said = [pb.AttachRequest(heartbeat=pb.WorkerHeartbeat(held_leases=held))] * 100
    for request in [pb.AttachRequest(batch=pb.AttachRequestBatch(requests=said))] if batched else said:
        stream.said.put_nowait(request)
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert workers.heartbeats == 2, "after two there are more notices than may wait"
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(100 * len(held)):
            assert (await anext(stream.answers)).WhichOneof("message") == "lease_lost"
    assert workers.heartbeats == 100


async def test_a_stream_that_is_cut_says_nothing_more_but_why() -> None:
    attachment = Attachment(WORKER, "att_1", 0.0, 8)
    attachment.say(DrainingNotice(1))
    attachment.cut(Refusal("token_revoked", "the account was ended"))
    attachment.say(DrainingNotice(2))
    assert await attachment.notices() == []
    assert isinstance(attachment.ended, Refusal)
    assert attachment.ended.reason == "token_revoked"
    assert not attachment.takes_runs(0.0, 60.0)


@pytest.mark.parametrize("said", [0, 1001])
async def test_a_capacity_beyond_the_contract_ends_the_stream(said: int) -> None:
    stream = Stream(holds_for_s=600)
    await anext(stream.answers)
    stream.said.put_nowait(pb.AttachRequest(capacity=pb.WorkerCapacity(max_held_runs=said)))
    refusal = await stream.refused()
    assert refusal.field == "capacity.max_held_runs"
