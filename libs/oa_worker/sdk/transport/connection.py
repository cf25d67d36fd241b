"""One Attach stream, and the book of appends that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc

from oa_base.refusal import Refusal
from oa_wire.batches import batches
from oa_worker.sdk.adapter import News
from oa_worker.sdk.transport.wire import refusal_of_rpc
from openagents.runtime.v1.worker_service_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    AppendRefused,
    AttachRequest,
    AttachRequestBatch,
    AttachResponse,
    ExpireRequestRequest,
    ReadHeldRunRequest,
    StartChildRequest,
    WorkerAttached,
    WorkerHello,
    WorkerRenewal,
)
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:
    from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

_Call = grpc.aio.StreamStreamCall[AttachRequest, AttachResponse]
T = TypeVar("T")
_Metadata = tuple[tuple[str, str], ...]
_CLOSE_TIMEOUT_S = 5.0


class AppendBook:
    """Appends that have no answer yet, in the order in which they were submitted; at most one per run."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[AppendEventsRequest, asyncio.Future[AppendEventsResponse | AppendRefused]]] = {}
        self._last_id = 0

    def enter(
        self, request: AppendEventsRequest
    ) -> tuple[AppendEventsRequest, asyncio.Future[AppendEventsResponse | AppendRefused]]:
        """Give the request its number; the future gets its answer."""
        self._last_id += 1
        numbered = AppendEventsRequest()
        numbered.CopyFrom(request)
        numbered.request_id = self._last_id
        future: asyncio.Future[AppendEventsResponse | AppendRefused] = asyncio.get_running_loop().create_future()
        self._entries[self._last_id] = (numbered, future)
        return numbered, future

    def unanswered(self) -> list[AppendEventsRequest]:
        """Return the requests that a new stream sends again, with the same keys."""
        return [request for request, _ in self._entries.values()]

    def settle(self, answer: AppendEventsResponse | AppendRefused) -> None:
        """Hand an answer to the task that waits for it; ignore an answer that nobody waits for (any more)."""
        _, future = self._entries.pop(answer.request_id, (None, None))
        if future is not None and not future.done():
            future.set_result(answer)

    def forget(self, request_id: int) -> None:
        """Drop a request whose answer nobody waits for any more."""
        self._entries.pop(request_id, None)


class Attachment:
    """An attached stream: `send` requests, iterate answers. Use `attach` to get one."""

    def __init__(self, stub: WorkerServiceAsyncStub, token: str, call: _Call, attached: WorkerAttached) -> None:
        self._stub = stub
        self.token = token
        """The token of calls beside the stream."""
        self.token_refused = asyncio.Event()
        """Set while that token was refused, and there is no other one."""
        self._changed = News()
        """Told of a new token, and of the end of the stream."""
        self._over = False
        self._call = call
        self._outbox: asyncio.Queue[AttachRequest | None] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write())
        self.attached = attached

    def send(self, request: AttachRequest) -> None:
        """Queue a request. The queue is short: one append per run, one heartbeat per interval."""
        self._outbox.put_nowait(request)

    def renew(self, token: str) -> None:
        """Continue under a fresh token, on the stream and beside it."""
        self.token = token
        self.token_refused.clear()
        self._changed.tell()
        self.send(AttachRequest(renew=WorkerRenewal(token=token)))

    async def replaced(self, token: str) -> None:
        """Wait until there is another token than this one, which was refused, or the stream has ended."""
        while self.token == token and not self._over:
            self.token_refused.set()
            await self._changed.after(self._changed.count)

    async def messages(self) -> AsyncIterator[AttachResponse]:
        """Iterate over the authority's messages. Raises Refusal when the stream breaks; never ends by itself."""
        while True:
            message = await _read(self._call)
            if not message.HasField("batch"):
                yield message
            for one in message.batch.responses:
                yield one

    async def read_run(self, request: ReadHeldRunRequest, *, timeout_s: float) -> Sequence[bytes]:
        """Read a page of the log of a run that this worker holds, in a call beside the stream. Raises Refusal."""
        answer = await _answered(self._stub.ReadHeldRun(request, metadata=_bearer(self.token), timeout=timeout_s))
        return answer.events

    async def expire(self, request: ExpireRequestRequest, *, timeout_s: float) -> None:
        """Say that the time of a request is over. Raises Refusal."""
        await _answered(self._stub.ExpireRequest(request, metadata=_bearer(self.token), timeout=timeout_s))

    async def start_child(self, request: StartChildRequest, *, timeout_s: float) -> str:
        """Start a child of a run that this worker holds, and return its run's id. Raises Refusal."""
        answer = await _answered(self._stub.StartChild(request, metadata=_bearer(self.token), timeout=timeout_s))
        return answer.child_run_id

    async def close(self) -> None:
        """Send what is queued, half-close, and wait a moment for the authority to close its side."""
        self._outbox.put_nowait(None)
        try:
            with contextlib.suppress(TimeoutError, Refusal):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await asyncio.wait([self._writer])
                    while True:
                        await _read(self._call)
        finally:
            self.abort()

    def abort(self) -> None:
        """End the stream at once."""
        self._over = True
        self._changed.tell()
        self._writer.cancel()
        self._call.cancel()

    async def _write(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader reports the break
            over = False
            while not over:
                queued, over = await self._queued()
                for requests in batches(queued):
                    await self._write_all(requests)
            await self._call.done_writing()

    async def _queued(self) -> tuple[list[AttachRequest], bool]:
        """Return the requests that wait up to the end, and whether the end has come. Requests that are queued after it
        are not sent any more: no heartbeat after a goodbye, for example."""
        queued: list[AttachRequest] = []
        request = await self._outbox.get()
        while request is not None:
            queued.append(request)
            if self._outbox.empty():
                return queued, False
            request = self._outbox.get_nowait()
        return queued, True

    async def _write_all(self, requests: list[AttachRequest]) -> None:
        if len(requests) > 1 and self.attached.takes_batches:
            await self._call.write(AttachRequest(batch=AttachRequestBatch(requests=requests)))
        else:
            for request in requests:
                await self._call.write(request)


def _bearer(token: str) -> _Metadata:
    return (("authorization", f"Bearer {token}"),)


async def attach(channel: grpc.aio.Channel, token: str, hello: WorkerHello, *, timeout_s: float) -> Attachment:
    """Open a stream and introduce the worker. Raises Refusal when the authority does not take it."""
    stub = WorkerServiceStub(channel)
    call = stub.Attach(metadata=_bearer(token))
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(AttachRequest(attach=hello))
            first = await _read(call)
    except TimeoutError:
        call.cancel()
        message = f"the runtime did not answer `attach` within {timeout_s:g} s; try again"
        raise Refusal("deadline_exceeded", message) from None
    except grpc.aio.AioRpcError as error:
        raise refusal_of_rpc(error) from None
    except asyncio.InvalidStateError:  # the call ended before the write
        raise await _refusal_of_ended(call) from None
    except BaseException:
        call.cancel()
        raise
    if first.WhichOneof("message") != "attached":
        call.cancel()
        raise Refusal("unavailable", "the runtime's first answer was not `attached`; check its address")
    return Attachment(stub, token, call, first.attached)


async def _answered(call: Awaitable[T]) -> T:
    """Return the answer of gRPC. Raises Refusal.

    When a stream ends, its channel is closed, and gRPC cancels the calls that are under way there. This is not a cancel
    of the task that waits, although it looks the same to that task.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise refusal_of_rpc(error) from None
    except asyncio.CancelledError:
        if task is not None and task.cancelling() > asked:
            raise
        raise Refusal("unavailable", "the worker's stream was replaced meanwhile; ask by the new one") from None


async def _read(call: _Call) -> AttachResponse:
    message = await _answered(call.read())
    if message is grpc.aio.EOF:
        raise await _refusal_of_ended(call)
    assert isinstance(message, AttachResponse)
    return message


async def _refusal_of_ended(call: _Call) -> Refusal:
    code, details = await call.code(), await call.details()
    if code is grpc.StatusCode.OK:
        return Refusal("unavailable", "the runtime closed the stream; attach again")
    trailers = await call.trailing_metadata()
    return refusal_of_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details))
