"""One run, for the program that started it or found it by its id."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.cursors import read_cursor, write_cursor
from oa_client.core.models import AskedRequest, Finish, Run, SyncGrant
from oa_client.core.store import CursorStore
from oa_client.core.wire import run_at
from oa_client.edge.commands import Commands
from oa_client.follow.items import EventsArchived, Seen, StartedOver
from oa_client.follow.run_tail import RunTail, Subscribes
from oa_client.sdk.topics import UpdateKind, topic_updates
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_runlog.events import Outcome, RunEvent, RunFinished
from oa_runlog.wire import seen_event
from oa_wire.given import check_count, check_text, check_text_arguments
from oa_wire.shapes import Misfit, json_text, shape_of

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

SURFACE = "sdk"
"""The kind of client that the services see."""


class RunEnded(Exception):
    """The run has ended without success. `finish` says how, and `reason` why, in one word ("nonzero_exit")."""

    def __init__(self, run_id: str, finish: Finish) -> None:
        said = f": {finish.message}" if finish.message else ""
        super().__init__(f"{run_id} {finish.outcome} ({finish.reason}){said}")
        self.run_id = run_id
        self.finish = finish

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their text; pools of processes carry them, and end if they can't.
        return (type(self), (self.run_id, self.finish))

    @property
    def reason(self) -> str:
        """The reason, as one word."""
        return self.finish.reason


class RunFailed(RunEnded):
    """The run did not do what was asked."""


class RunCanceled(RunEnded):
    """The run was ended on request."""


def _replaced(reason: str) -> Refusal:
    return Refusal.received(reason, "the log was replaced while it was followed; read the events from the start")


class RunHandle:
    """A run at the service. It continues whether or not anybody holds its handle."""

    def __init__(self, run_id: str, commands: Commands, following: Subscribes) -> None:
        self.run_id = run_id
        self._commands = commands
        self._following = following

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id})"

    async def state(self) -> Run:
        """The authority's current state. Raises Refusal `not_found`."""
        return await self._commands.run(self.run_id)

    async def events(self, *, after_seq: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Yield the run's events above `after_seq`, in order: the existing ones, then each as it comes, to the last.

        Each event is yielded once. A broken connection is reopened and continues with exactly the next event. With
        `after_seq`, a snapshot of the run says first where its log stands; events up to `after_seq` are not sent. An
        event of a kind that only a later release knows has the body `events.Unknown`.

        Raises Refusal: `invalid_value` for an `after_seq` that is not a whole number from 0 on,
        `retention_floor_breach` if the events have moved to the archive, and the reason why the log can't be continued
        if it was replaced meanwhile.
        """
        check_count(after_seq, "after_seq")
        topic = run_events(self.run_id)
        began = await self._beginning(topic) if after_seq else None
        if began is None:
            async with aclosing(self._all_events()) as events:
                async for event in events:
                    if event.seq > after_seq:
                        yield event
            return
        cursor, state = began
        if state.latest_seq <= after_seq and state.ended:
            return
        # Without a chain value, the service compares numbers only.
        at = replace(cursor, applied_seq=after_seq, chain=b"") if after_seq < state.latest_seq else cursor
        async with aclosing(topic_updates(self._following, {topic: write_cursor(at)}, snapshots=False)) as updates:
            async for update in updates:
                if update.refusal is not None:
                    raise update.refusal
                if update.kind is UpdateKind.RESTARTED:
                    archived = update.reason == "retention_floor_breach"
                    raise EventsArchived(self.run_id) if archived else _replaced(update.reason)
                if update.kind is UpdateKind.EVENT:
                    event = seen_event(update.payload)
                    if event.seq > after_seq:
                        yield event
                    if isinstance(event.body, RunFinished):
                        return

    async def _all_events(self) -> AsyncGenerator[RunEvent, None]:
        tail = RunTail(self._following, CursorStore(), self.run_id)
        async with aclosing(tail.items()) as items:
            async for item in items:
                match item:
                    case Seen(event=event):
                        yield event
                    case StartedOver(reason=reason):
                        raise _replaced(reason)

    async def _beginning(self, topic: str) -> tuple[Cursor, Run] | None:
        """Where the log stands, and the run there; None if the site gives no snapshot of runs."""
        async with aclosing(topic_updates(self._following, {topic: ""}, snapshots=True)) as updates:
            async for update in updates:
                if update.refusal is not None:
                    raise update.refusal
                if update.kind is UpdateKind.SNAPSHOT:
                    return read_cursor(update.cursor), run_at(update.payload).run
                if update.kind is not UpdateKind.RESTARTED:
                    return None
        return None

    async def result(self) -> Finish:
        """Wait for the run's end and return how it succeeded. Raises RunFailed or RunCanceled if it did not.

        It waits as long as the run takes, even while a service is unavailable: limit it with `asyncio.timeout`.
        Canceling the wait does not cancel the run. Raises Refusal `not_found`, `invalid_api_key` and others for which
        waiting does not help.
        """
        state = await self._state_in_time()
        if state.finish is None:
            await self._until_finished()
            state = await self._state_in_time()
        if state.finish is None:
            raise Refusal("unavailable", "the service does not know of the end that it told; try again")
        match state.finish.outcome:
            case Outcome.SUCCEEDED:
                return state.finish
            case Outcome.CANCELED:
                raise RunCanceled(self.run_id, state.finish)
            case _:
                raise RunFailed(self.run_id, state.finish)

    async def output(self, type_: TypeForm[T]) -> T:
        """Wait for the run's end and return the result of its agent as a value of this type. Raises as `result` does,
        and Refusal `payload_mismatch` if the agent returned nothing, or a value that is not of the type.
        """
        shape = shape_of(type_, "validation")
        finish = await self.result()
        try:
            return shape.read(finish.result_json)
        except Misfit as misfit:
            message = f"the run's result is not of the type ({misfit}); ask for the one that its agent returns"
            raise Refusal("payload_mismatch", message, field="result_json") from None

    async def send(self, value: object, *, key: str = "") -> int:
        """Send an input to the run's agent, which gets it with `run.receive` or `run.inbox`, and return its seq.

        `value` is sent as JSON, like an input of `Client.start`. `key` makes it safe to call this again: with the same
        key, the input is sent only once. Raises Refusal `invalid_transition` for a run that has ended or is to end.
        """
        check_text(key, "key")
        text = json_text(value, "value")
        return await self._commands.talk.send(self.run_id, text, key)

    async def requests(self) -> list[AskedRequest]:
        """Return the requests of the run, in order, each with its state and answer."""
        return await self._commands.talk.requests(self.run_id)

    async def answer(self, request_id: str, *, option: str = "", text: str = "") -> int:
        """Answer a request of the run with an option or a text; return the seq of the answer. The first answer counts.

        Raises Refusal `request_settled` if another one came first, `invalid_value` for one that does not fit.
        """
        check_text_arguments(request_id=request_id, option=option, text=text)
        return await self._commands.talk.answer(self.run_id, request_id, option=option, text=text)

    async def cancel(self, reason: str = "") -> Run:
        """Ask for the run to end, and return at once. `result` waits for the end."""
        check_text(reason, "reason")
        return await self._commands.cancel(self.run_id, reason)

    async def sync_token(self, *, ttl_s: int = 0) -> SyncGrant:
        """A token with which another client, such as a browser, can follow this run for a while and do nothing else.

        `ttl_s`: 60 to 900, or 0 for the service's default.
        """
        check_count(ttl_s, "ttl_s")
        return await self._commands.sync_token([run_events(self.run_id)], surface=SURFACE, ttl_seconds=ttl_s)

    async def _state_in_time(self) -> Run:
        """Return the state, as soon as the service is there to tell it."""
        failures = 0
        while True:
            try:
                return await self.state()
            except Refusal as refusal:
                if refusal.info.action is not ClientAction.RETRY or refusal.reason == "internal":
                    raise
                delay_ms = refusal.retry_after_ms or RECONNECT.wait_ms(failures, random.random())
            failures += 1
            await asyncio.sleep(delay_ms / 1000)

    async def _until_finished(self) -> None:
        # Unlike `events`, it goes on when the log was replaced: only the end matters.
        tail = RunTail(self._following, CursorStore(), self.run_id)
        try:
            async with aclosing(tail.items()) as items:
                async for _ in items:
                    pass
        except EventsArchived:  # archived, so it has ended
            pass
