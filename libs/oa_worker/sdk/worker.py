"""The worker process: one attached stream at a time, any number of runs, reconnects in between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from urllib.parse import urlsplit

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_worker.sdk.adapter import Adapter
from oa_worker.sdk.limits import DEFAULT_WORKER_LIMITS, WorkerLimits
from oa_worker.sdk.loop_watch import LoopWatch
from oa_worker.sdk.notices import Attached, Detached, Notice, contained
from oa_worker.sdk.runs.buffer import EVENT_OVERHEAD_BYTES
from oa_worker.sdk.runs.runs import Runs
from oa_worker.sdk.runs.slots import Slots
from oa_worker.sdk.transport.calls import AuthorityCalls
from oa_worker.sdk.transport.connection import AppendBook, Attachment, attach
from oa_worker.sdk.transport.tokens import OF_CLOCKS, KeptTokens, TokenSource, WorkerToken, may_pass
from oa_worker.sdk.transport.trust import SECURE, open_channel
from oa_worker.sdk.transport.waits import Waits
from oa_worker.sdk.transport.way import Way
from openagents.runtime.v1.worker_service_pb2 import (
    Agent,
    AppendEventsRequest,
    AppendEventsResponse,
    AppendRefused,
    AttachRequest,
    AttachResponse,
    WorkerCapacity,
    WorkerDrain,
    WorkerGoodbye,
    WorkerHeartbeat,
    WorkerHello,
)

_log = logging.getLogger("oa_worker")
# A program that has not set up logging gets only the notices, and no warnings on stderr at each try.
_log.addHandler(logging.NullHandler())
_HOPELESS = {ClientAction.GIVE_UP, ClientAction.FIX_REQUEST, ClientAction.UPGRADE}
# A token may be revoked although its key is good: a fresh token is tried, once.
_REVOKED = "token_revoked"
_FORGOTTEN = {"worker_lost", "not_found"}


class _Reconnect(Exception):
    """The stream is to be replaced, after a delay; nothing is wrong."""

    def __init__(self, delay_ms: int) -> None:
        self.delay_ms = delay_ms


class Worker:
    """Takes runs for its adapters. `run` works until `drain`; `notify` is told what happens (for people and tests).

    `slots`: how many runs are at work at a time. Runs that only wait take no slot (`Assignment.waiting`).
    `agents`: what the authority is told about adapters with typed input and result.
    `proxy`: the URL of an HTTP proxy on the way to the runtime, for all but loopback; the environment's are not used.
    `ca_file`: certificates of authorities (PEM) that are trusted besides the public ones, where the runtime has TLS.
    """

    def __init__(
        self,
        name: str,
        adapters: Sequence[Adapter],
        tokens: TokenSource,
        *,
        slots: int = 1,
        agents: Sequence[Agent] = (),
        limits: WorkerLimits = DEFAULT_WORKER_LIMITS,
        proxy: str = "",
        ca_file: Path | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
    ) -> None:
        self._name = name
        self._tokens = KeptTokens(tokens)
        self._slots = slots
        self._agents = agents
        self._limits = limits
        self._proxy = proxy
        self._ca_file = ca_file
        self._notify = contained(notify)
        self._book = AppendBook()
        idle = asyncio.Event()
        self._waits = Waits(limits, idle)
        self._calls = AuthorityCalls(self._waits, limits.max_rejected_tokens)
        self._runs = Runs(adapters, self._notify, self._calls, idle, Slots(slots, limits, self._tell_capacity))
        self._draining = asyncio.Event()
        self._left = asyncio.Event()
        """Set once the worker has said goodbye: the end of its stream is expected then."""
        self._was_attached = False
        self.worker_id = ""

    def drain(self) -> None:
        """Finish the current runs, take no new ones, then return from `run`."""
        self._draining.set()

    async def run(self) -> None:
        """Work until drained. Raises Refusal when it is pointless to continue (with a revoked key or account, say)."""
        serving = asyncio.create_task(self._serve())
        drained = asyncio.create_task(self._drained())
        try:
            with LoopWatch(self._limits.blocked_after_ms):
                await asyncio.wait({serving, drained}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            drained.result()
            self._left.set()
            if self._calls.attachment is not None:
                self._calls.attachment.send(AttachRequest(goodbye=WorkerGoodbye()))
                await self._calls.attachment.close()
        finally:
            for task in (serving, drained):
                task.cancel()
            ended = Refusal("worker_lost", "this worker has ended; another worker takes the run")
            await asyncio.gather(serving, drained, self._runs.lose_all(ended), return_exceptions=True)

    # ---------------------------------------------------------------------------------------------- connections

    async def _serve(self) -> None:
        """Attach, again and again, until that is hopeless, or the worker has left."""
        failures, rejected, revoked = 0, 0, 0
        while not self._left.is_set():
            self._waits.attached_at_s = None
            try:
                await self._attached_once(await self._tokens.get(at_once=failures == 0))
            except _Reconnect as planned:
                failures, rejected, revoked = 0, 0, 0
                await asyncio.sleep(planned.delay_ms / 1000)
            except Refusal as refusal:
                if self._left.is_set():
                    return
                failures += 1
                if self._waits.was_steady():  # its token was good, so what was refused before is no longer in a row
                    failures, rejected, revoked = 0, 0, 0
                if refusal.reason == _REVOKED:
                    revoked += 1
                    await self._runs.lose_all(refusal)  # the authority has given the runs to others
                if refusal.info.action is ClientAction.REAUTHENTICATE:
                    self._tokens.drop()  # every further attempt comes with a fresh token
                    rejected += refusal.reason not in OF_CLOCKS
                if self._hopeless(refusal, rejected) or revoked > 1:
                    raise
                delay_ms = self._waits.retry_ms(refusal, failures)
                _log.warning("not attached: %s; trying again in %d ms", refusal, delay_ms)
                self._notify(Detached(refusal, delay_ms))
                await asyncio.sleep(delay_ms / 1000)

    def _hopeless(self, refusal: Refusal, rejected: int) -> bool:
        if refusal.reason in _FORGOTTEN and self.worker_id:
            if self._waits.attached_at_s is None:
                self.worker_id = ""  # the authority has forgotten this worker: come back as a new one
            return False  # this stream no longer speaks for the worker: another one may, and keeps its leases
        if self._was_attached and may_pass(refusal):
            return False
        return refusal.info.action in _HOPELESS or rejected >= self._limits.max_rejected_tokens

    async def _attached_once(self, token: WorkerToken) -> None:
        """One stream from `attach` to its end, which is always an exception."""
        way = Way(self._proxy, urlsplit(f"//{token.runtime_address.removeprefix(SECURE)}").hostname or "")
        options = [*self._channel_options(), *way.channel_options()]
        async with open_channel(token.runtime_address, options, self._ca_file) as channel:
            try:
                attachment = await attach(channel, token.token, self._hello(), timeout_s=self._waits.attach_timeout_s())
            except Refusal as refusal:
                raise _said_of(refusal, token.runtime_address, way) from None
            try:
                self._take_over(attachment, token.runtime_address)
                await self._first_end(
                    self._receive(attachment),
                    self._beat(attachment),
                    self._renew(attachment, token),
                )
            except _Reconnect:
                await attachment.close()
                raise
            finally:
                self._calls.attachment = None
                attachment.abort()

    def _channel_options(self) -> list[tuple[str, int | str]]:
        limits = self._limits
        return [
            ("grpc.keepalive_time_ms", limits.keepalive_interval_ms),
            ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_ms),
            # Without this option a ping may stay unanswered for a minute, whatever the option above says.
            ("grpc.http2.ping_timeout_ms", limits.keepalive_timeout_ms),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    def _take_over(self, attachment: Attachment, address: str) -> None:
        self._waits.stands(attachment.attached.lost_after_ms)
        if attachment.attached.HasField("server_time"):
            self._runs.clock.set(attachment.attached.server_time.ToDatetime(UTC))
        self._calls.attachment = attachment
        self.worker_id, self._was_attached = attachment.attached.worker_id, True
        _log.info("attached as %s at %s", self.worker_id, address)
        self._notify(Attached(self.worker_id, address))
        if self._draining.is_set():
            attachment.send(AttachRequest(drain=WorkerDrain()))
        for request in self._book.unanswered():
            attachment.send(AttachRequest(append=request))
        self._runs.note_all()  # of events that came while nobody could be told
        if self._runs.slots.capacity != self._slots:
            self._tell_capacity()

    @staticmethod
    async def _first_end(*parts: object) -> None:
        tasks = [asyncio.ensure_future(part) for part in parts]  # type: ignore[call-overload]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, attachment: Attachment) -> None:
        async for message in attachment.messages():
            self._handle(message)

    async def _beat(self, attachment: Attachment) -> None:
        interval_s = attachment.attached.heartbeat_interval_ms / 1000
        while True:
            attachment.send(AttachRequest(heartbeat=WorkerHeartbeat(held_leases=self._runs.leases())))
            await asyncio.sleep(interval_s)

    async def _renew(self, attachment: Attachment, token: WorkerToken) -> None:
        """Continue under a fresh token each time before the current one expires, or once a call beside the stream was
        refused with it; with another stream where needed.

        While control is away, the stream stays until its token ends.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(token.lifetime_s * self._limits.token_share):
                    await attachment.token_refused.wait()
            fresh = await self._fresh_token()
            if not attachment.attached.takes_renewals or fresh.runtime_address != token.runtime_address:
                raise _Reconnect(0)
            attachment.renew(fresh.token)
            token = fresh

    async def _fresh_token(self) -> WorkerToken:
        failures = 0
        while True:
            try:
                return await self._tokens.renew()
            except Refusal as refusal:
                if not may_pass(refusal):
                    raise
                failures += 1
                delay_ms = self._waits.retry_ms(refusal, failures)
                _log.warning("no new token: %s; trying again in %d ms", refusal, delay_ms)
                await asyncio.sleep(delay_ms / 1000)

    def _hello(self) -> WorkerHello:
        return WorkerHello(
            worker_id=self.worker_id,
            name=self._name,
            adapters=self._runs.adapters,
            max_concurrent_runs=self._slots,
            held_leases=self._runs.leases(),
            agents=self._agents,
            takes_batches=True,
        )

    def _tell_capacity(self) -> None:
        """Tell how many runs the worker may hold now: more than it has slots, while some of them only wait."""
        attachment = self._calls.attachment
        if attachment is not None and attachment.attached.takes_capacity:
            attachment.send(AttachRequest(capacity=WorkerCapacity(max_held_runs=self._runs.slots.capacity)))

    # --------------------------------------------------------------------------------------------------- messages

    def _handle(self, message: AttachResponse) -> None:
        match message.WhichOneof("message"):
            case "assignment":
                self._runs.take(message.assignment, self._submit, self._run_limits())
            case "appended":
                self._book.settle(message.appended)
            case "append_refused":
                self._append_refused(message.append_refused)
            case "cancel":
                self._runs.cancel(message.cancel)
            case "news":
                self._runs.note_news(message.news)
            case "lease_lost":
                self._runs.lose(message.lease_lost)
            case "draining":
                raise _Reconnect(message.draining.reconnect_after_ms)
            case _:
                pass  # a newer authority may say more

    def _append_refused(self, refused: AppendRefused) -> None:
        if refused.reason == "worker_lost":
            # Not an answer about the append: attach again, and it will be sent again.
            raise Refusal("worker_lost", refused.message)
        self._book.settle(refused)

    async def _submit(self, request: AppendEventsRequest) -> AppendEventsResponse | AppendRefused:
        numbered, future = self._book.enter(request)
        if self._calls.attachment is not None:
            self._calls.attachment.send(AttachRequest(append=numbered))
        try:
            return await future
        finally:
            self._book.forget(numbered.request_id)

    def _run_limits(self) -> WorkerLimits:
        """Our limits, or the authority's where it allows less."""
        if self._calls.attachment is None:
            return self._limits
        attached, ours = self._calls.attachment.attached, self._limits
        max_text = max(1, attached.max_event_bytes - EVENT_OVERHEAD_BYTES)
        return dataclasses.replace(
            ours,
            events_per_second=attached.max_events_per_second or ours.events_per_second,
            max_text_bytes=min(ours.max_text_bytes, max_text) if attached.max_event_bytes else ours.max_text_bytes,
        )

    # ------------------------------------------------------------------------------------------------------- drain

    async def _drained(self) -> None:
        """Return when draining was requested and the current runs are over, or have had their time."""
        await self._draining.wait()
        if self._calls.attachment is not None:
            self._calls.attachment.send(AttachRequest(drain=WorkerDrain()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_timeout_ms / 1000):
                await self._runs.idle.wait()
        over = "the worker drains and its time is over; another worker takes the run"
        await self._runs.lose_all(Refusal("worker_lost", over))


def _said_of(refusal: Refusal, address: str, way: Way) -> Refusal:
    """Return the same refusal; a refusal that concerns the way to the runtime also names the way."""
    if not way.words or refusal.reason not in ("unavailable", "deadline_exceeded"):
        return refusal
    message = f"the runtime can't be reached at {address}{way.words}: {refusal.message}"
    return Refusal(refusal.reason, message, retry_after_ms=refusal.retry_after_ms)
