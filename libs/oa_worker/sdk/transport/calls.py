"""Calls to the authority beside the stream: they wait for a stream that stands, and are made again when one breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_worker.sdk.transport.connection import Attachment
from oa_worker.sdk.transport.tokens import OF_CLOCKS, may_pass
from oa_worker.sdk.transport.waits import Waits
from openagents.runtime.v1.event_pb2 import RunEvent
from openagents.runtime.v1.worker_service_pb2 import (
    ExpireRequestRequest,
    HeldLease,
    ReadHeldRunRequest,
    StartChildRequest,
)

T = TypeVar("T")


class AuthorityCalls:
    """Calls that the runs of one worker make to the authority."""

    def __init__(self, waits: Waits, max_rejected_tokens: int) -> None:
        self._waits = waits
        self._max_rejected_tokens = max_rejected_tokens
        self.attachment: Attachment | None = None
        """The current stream, which the worker sets; None while there is none."""

    async def read_run(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        """See `ReadRun`: a page at a time."""
        while True:
            request = ReadHeldRunRequest(
                run_id=lease.run_id,
                lease_epoch=lease.lease_epoch,
                after_seq=after_seq,
                types=types,
                newest_only=newest_only,
            )
            events = await self._made(partial(Attachment.read_run, request=request))
            if not events:
                return
            after_seq = RunEvent.FromString(events[-1]).seq
            for event in events:
                yield event
            if newest_only:
                return

    async def expire_request(self, lease: HeldLease, request_id: str) -> None:
        """Say that the time of a request is over; the request is settled when this returns. Raises Refusal."""
        request = ExpireRequestRequest(run_id=lease.run_id, lease_epoch=lease.lease_epoch, request_id=request_id)
        await self._made(partial(Attachment.expire, request=request))

    async def start_child(self, request: StartChildRequest) -> str:
        """Start a child of the run, unless it exists; return its run's id. Raises Refusal."""
        return await self._made(partial(Attachment.start_child, request=request))

    async def _made(self, call: Callable[..., Awaitable[T]]) -> T:
        """Return the answer as soon as there is one. Raises the Refusal after which another try does not help."""
        failures, rejected = 0, 0
        while True:
            attachment = self.attachment
            token = attachment.token if attachment else ""
            try:
                if attachment is None:
                    raise Refusal("unavailable", "the worker is not attached now; wait until it is")
                return await call(attachment, timeout_s=self._waits.attach_timeout_s())
            except Refusal as refusal:
                if attachment is not None and refusal.info.action is ClientAction.REAUTHENTICATE:
                    rejected += refusal.reason not in OF_CLOCKS
                    if rejected > self._max_rejected_tokens:
                        raise
                    await attachment.replaced(token)
                elif not may_pass(refusal):
                    raise
                failures += 1
                await asyncio.sleep(self._waits.retry_ms(refusal, failures) / 1000)
