"""Follows topics over Khala: drives the pure `oa_khala.client.session` over a socket and a watermark store.

    async with Subscription(device_id, build, tokens, sockets, store) as subscription:
        await subscription.follow("run:run_01J…:events")
        async for update in subscription.updates():
            ...

Every `Applied` has been persisted together with its watermark before it is handed out, and each (topic, seq) is
handed out once per subscription. The subscription repairs a broken connection itself; `Connection` updates report it.
Memory is bounded: if nobody takes the updates, reading from the socket stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Protocol, Self

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.chains import RunChains
from oa_client.core.models import SyncGrant
from oa_client.core.store import MAX_BATCH, StoreMoved, WatermarkStore
from oa_client.follow.holdings import Holdings
from oa_client.follow.updates import Applied, CaughtUp, Connection, Refused, Restarted, Update
from oa_client.transport import Socket, SocketClosed, Sockets
from oa_khala import wire
from oa_khala.client.commands import (
    Apply,
    ClientLimits,
    Command,
    Connect,
    Disconnect,
    Instant,
    Live,
    NeedToken,
    Resync,
    Send,
    SessionFailed,
    SyncToken,
    TopicFailed,
)
from oa_khala.client.session import ClientSession
from oa_khala.client.states import State
from oa_khala.client.topics import Counts
from oa_khala.frames import Cursor, ErrorFrame, Form, ServerFrame
from oa_khala.topics import RUN_EVENTS

REPLACED = "epoch_mismatch"
"""Reason of Restarted for elements that do not continue the stored ones."""
MAX_QUEUED_FRAMES = 512
"""Maximum number of frames that were read and wait to be applied."""


class SyncTokens(Protocol):
    """The source of sync tokens (control's mint)."""

    async def sync_token(self, topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
        """Return a token for those of the topics that are granted. Raises Refusal."""


class Subscription:
    """See the module. Only one task may use it, but any may suspend and resume it."""

    def __init__(
        self,
        device_id: str,
        client_build_id: str,
        tokens: SyncTokens,
        sockets: Sockets,
        store: WatermarkStore,
        *,
        surface: str = "cli",
        khala_url: str = "",
        max_batch: int = MAX_BATCH,
        limits: ClientLimits | None = None,
        grants: Collection[str] = (),
    ) -> None:
        """`khala_url` overrides the address that comes with the token.

        `grants`: topics of owners, such as `run:org_<ULID>:events`, for which tokens are requested instead of for each
        such topic by name. A client that follows many runs then needs one token for them, and none for a later run.

        `max_batch`: maximum number of elements persisted in one transaction. With 1, an `Applied` is handed out
        before the next element is persisted.
        """
        self._session = ClientSession(device_id, client_build_id, limits, RunChains(), grants)
        self._tokens = tokens
        self._open = lambda: sockets.open(self._url, Form.PROTO.value)
        self._holdings = Holdings(store)
        self._surface = surface
        self._fixed_url = khala_url
        self._url: str = khala_url
        self._max_batch = max_batch
        self._inputs: asyncio.Queue[Callable[[], list[Command]]] = asyncio.Queue(MAX_QUEUED_FRAMES)
        self._links: dict[int, _Link] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[Socket] = set()
        """Sockets that are closing and wait for the gateway's close frame."""
        self._updates: deque[Update] = deque()
        self._no_token: Refusal | None = None
        """Why there was no token when one was last asked for."""
        self._failure: Refusal | None = None
        self._said = ""
        """The gateway's error about the end of the connection, before it closed the connection."""

    @property
    def counts(self) -> Counts:
        """Counts of what was received so far, over all topics."""
        return self._session.counts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def follow(self, topic: str, *, snapshots: bool = False) -> Cursor | None:
        """Follow `topic` from its stored watermark on, and return that.

        `snapshots`: if there is no watermark, or it can't be continued, a run begins with a snapshot of its current
        state, in place of its events up to there. Lists always do so.
        """
        takes = snapshots or not topic.startswith(RUN_EVENTS.prefix)
        cursor = self._holdings.follow(topic)
        await self._execute(self._session.subscribe(topic, cursor, _at(), takes))
        return cursor

    async def unfollow(self, topic: str) -> None:
        """Stop following `topic`; its stored state stays."""
        self._holdings.unfollow(topic)
        await self._execute(self._session.unsubscribe(topic))

    async def suspend(self) -> None:
        """Drop the connection, or make none, until `resume`: the device goes to sleep or offline."""
        await self._execute([*self._session.start(_at()), *self._session.suspended()])

    async def resume(self) -> None:
        """Connect as soon as the gateway allows, whatever failed before: the device is back."""
        await self._execute(self._session.resumed(_at()))
        if self._inputs.empty():
            self._inputs.put_nowait(list)  # `updates` waits for no deadline, and now there is one

    def cut(self) -> bool:
        """Abort the TCP connection, without a closing handshake, as a failing network does; False if there is none."""
        socket = next((link.socket for link in self._links.values() if link.socket is not None), None)
        if socket is not None:
            socket.abort()
        return socket is not None

    async def updates(self) -> AsyncGenerator[Update, None]:
        """Yield updates without end. If it is called again after a `break`, it continues with the next update.

        Raises Refusal when trying again can't help (for example, for a revoked session).
        """
        await self._execute(self._session.start(_at()))
        while True:
            while self._updates:
                yield self._updates.popleft()
            if self._failure is not None:
                raise self._failure
            if self._session.state is State.STOPPED:
                return
            await self._execute(await self._next_commands())

    async def close(self) -> None:
        """End: close the connection with a closing handshake. Everything applied is already persisted."""
        links = list(self._links.values())
        self._session.stop()
        try:
            for link in links:
                if link.socket is not None:
                    await link.socket.close()
        finally:  # also if the wait for the other end is given up
            tasks = [*(link.task for link in links), *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._links.clear()
            for socket in self._leaving:  # the task that closes it may have been canceled before its first step
                socket.abort()
            self._leaving.clear()

    # ------------------------------------------------------------------------------------------------------- inputs

    async def _next_commands(self) -> list[Command]:
        """Wait for an input or a timer. Inputs that are already waiting are taken along, up to a batch."""
        wake_at_ms = self._session.wake_at_ms
        timeout_s = None if wake_at_ms is None else max(0, wake_at_ms - _now_ms()) / 1000
        try:
            async with asyncio.timeout(timeout_s):
                commands = (await self._inputs.get())()
        except TimeoutError:
            return self._session.timer(_at())
        while len(commands) < self._max_batch and not self._inputs.empty():
            commands += self._inputs.get_nowait()()
        if wake_at_ms is not None and _now_ms() >= wake_at_ms:
            commands += self._session.timer(_at())
        return commands

    # ------------------------------------------------------------------------------------------------------ commands

    async def _execute(self, commands: Sequence[Command]) -> None:
        """Carry out commands in order. Consecutive applies are one transaction."""
        pending: list[Apply] = []
        for command in commands:
            if isinstance(command, Apply):
                pending.append(command)
                continue
            await self._apply(pending)
            pending = []
            await self._execute_one(command)
        await self._apply(pending)

    async def _execute_one(self, command: Command) -> None:
        match command:
            case Connect():
                self._links[command.generation] = _Link(self, command.generation, self._open, command.delay_ms)
            case Disconnect():
                self._disconnect(command.generation)
            case Send():
                link = self._links.get(command.generation)
                if link is not None:
                    link.send(wire.encode_client_frame(command.frame, Form.PROTO))
            case NeedToken():
                _spawn(self._mint(command.topics), self._tasks)
            case Resync():
                if self._holdings.drop(command.topic):
                    self._updates.append(Restarted(command.topic, command.reason))
                else:
                    await self._continue_from_store(command.topic, command.reason)
            case Live():
                self._updates.append(CaughtUp(command.topic, command.seq))
            case TopicFailed():
                self._holdings.unfollow(command.topic)
                refusal = Refusal.received(command.reason, command.message)
                self._updates.append(Refused(command.topic, refusal))
            case SessionFailed():
                why = self._no_token
                is_why = why is not None and (why.reason, why.message) == (command.reason, command.message)
                self._failure = why if is_why else Refusal.received(command.reason, command.message)
            case Apply():
                raise AssertionError("applies are batched")

    async def _apply(self, elements: list[Apply]) -> None:
        if not elements:
            return
        try:
            self._holdings.put(elements)
        except StoreMoved as moved:
            for topic in dict.fromkeys(element.topic for element in elements):
                if topic == moved.topic:
                    await self._continue_from_store(topic, REPLACED)
                else:  # its elements were not stored, because a batch is stored as a whole
                    await self._execute(self._session.rewind(topic, self._holdings.cursor(topic), _at()))
            return
        for each in elements:
            self._updates.append(Applied(each.topic, each.cursor, each.payload, each.snapshot))

    async def _continue_from_store(self, topic: str, reason: str) -> None:
        """Continue from what is really stored: another process has dropped or replaced what was stored here."""
        cursor = self._holdings.found(topic)
        self._updates.append(Restarted(topic, reason, cursor))
        await self._execute(self._session.rewind(topic, cursor, _at()))

    def _disconnect(self, generation: int) -> None:
        link = self._links.pop(generation, None)
        if link is not None:
            link.task.cancel()
            if link.socket is not None:
                self._leaving.add(link.socket)
                _spawn(_leave(link.socket, self._leaving), self._tasks)

    async def _mint(self, topics: frozenset[str]) -> None:
        try:
            grant = await self._tokens.sync_token(sorted(topics), surface=self._surface)
        except Exception as error:  # noqa: BLE001 - also a defect of who gives tokens: nobody else hears of it
            broken = f"no token ({type(error).__name__}); mend what gives tokens"
            refusal = error if isinstance(error, Refusal) else Refusal("internal", broken)
            self._no_token, reason, message = refusal, refusal.reason, refusal.message
            if refusal.info.action is ClientAction.RETRY and self._session.state is State.NO_TOKEN:
                self._updates.append(Connection(False, f"{reason}: {message}"))
            wait_ms = refusal.retry_after_ms
            await self._inputs.put(lambda: self._session.no_token(reason, message, _at(), wait_ms))
            return
        self._url = self._fixed_url or grant.khala_url
        token = SyncToken(grant.token, grant.topics, grant.expires_in_ms, grant.refused)
        await self._inputs.put(lambda: self._session.token(token, _at()))

    # ------------------------------------------------------------------------------------------- called by the links

    async def opened(self, generation: int) -> None:
        """For a link: the WebSocket is open."""
        self._said = ""
        self._updates.append(Connection(True))
        await self._inputs.put(lambda: self._session.connected(generation, _at()))

    async def received(self, generation: int, frame: ServerFrame) -> None:
        """For a link: a frame came. Waits while too many frames wait to be applied."""
        if isinstance(frame, ErrorFrame) and not frame.topic:
            self._said = f"{frame.reason}: {frame.message}"
        await self._inputs.put(lambda: self._session.frame(generation, frame, _at()))

    async def ended(self, generation: int, closed: SocketClosed) -> None:
        """For a link: the WebSocket is gone, or could not be opened."""

        message, self._said = self._said or closed.message, ""

        def report() -> list[Command]:
            if self._links.pop(generation, None) is not None:
                self._updates.append(Connection(False, message))
            at = _at()
            return self._session.disconnected(generation, at, closed.reason, message, closed.retry_after_ms)

        await self._inputs.put(report)


class _Link:
    """One connection: a task that opens, reads and writes it."""

    def __init__(
        self, owner: Subscription, generation: int, open_socket: Callable[[], Awaitable[Socket]], delay_ms: int
    ) -> None:
        self._owner = owner
        self._open_socket = open_socket
        self._generation = generation
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.socket: Socket | None = None
        self.task = asyncio.create_task(self._run(delay_ms / 1000))

    def send(self, data: bytes) -> None:
        """Queue a message; the session sends few messages, and small ones."""
        self._outbox.put_nowait(data)

    async def _run(self, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            self.socket = await self._open_socket()
            writer = asyncio.create_task(self._write(self.socket))
            try:
                await self._owner.opened(self._generation)
                while True:
                    data = await self.socket.receive()
                    await self._owner.received(self._generation, _decoded(data))
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        except SocketClosed as closed:
            await self._owner.ended(self._generation, closed)
        except Exception as error:  # noqa: BLE001 - also a defect of who opens sockets: nobody else hears of it
            if self.socket is not None:
                self.socket.abort()
            await self._owner.ended(self._generation, _broken(error))

    async def _write(self, socket: Socket) -> None:
        with contextlib.suppress(SocketClosed):  # the reader reports it
            while True:
                await socket.send(await self._outbox.get())


async def _leave(socket: Socket, leaving: set[Socket]) -> None:
    await socket.close()
    leaving.discard(socket)


def _broken(error: Exception) -> SocketClosed:
    if isinstance(error, Refusal):  # a setting that can't be used, for example
        return SocketClosed(error.message, reason=error.reason, retry_after_ms=error.retry_after_ms)
    return SocketClosed(f"the connection can't be used ({type(error).__name__}: {error}); check the gateway's address")


def _decoded(data: bytes) -> ServerFrame:
    try:
        return wire.decode_server_frame(data, Form.PROTO)
    except Refusal as refusal:
        raise SocketClosed(f"the gateway sent what is no frame: {refusal.message}", code=1002) from None


def _spawn(work: Awaitable[None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _at() -> Instant:
    return Instant(_now_ms(), random.random())  # jitter, not a secret


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
