"""One turn of a Codex thread, on an app-server of its own: from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from oa_wire.rules import check_rules
from oa_worker.adapters.codex.events import TurnEvents, error_words
from oa_worker.adapters.codex.inputs import CodexResult, CodexTurn
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.lock import TurnLock, codex_home
from oa_worker.adapters.codex.server import AppServer, Message, RequestRefused
from oa_worker.adapters.codex.talk import Questions, steer
from oa_worker.agents.failures import AgentFailure
from oa_worker.agents.primitives.requests import Requests
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1.event_pb2 import EventBody


class Turn:
    """One turn; call `take` once. Raises AgentFailure with the reason word of docs/codex.md."""

    def __init__(
        self,
        assignment: Assignment,
        emit: Emit,
        command: Sequence[str],
        env: Mapping[str, str],
        limits: CodexLimits,
    ) -> None:
        self._assignment = assignment
        self._emit = emit
        self._command = command
        self._env = env
        self._limits = limits
        self._events = TurnEvents("", "", limits)
        self._completed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions: Questions | None = None

    async def take(self, run: Run[CodexTurn]) -> CodexResult:
        """Start an app-server, let it do the turn, and end it in any case."""
        await self._refuse_what_was_begun(run)
        folder = _folder(run.input.working_directory)
        with contextlib.closing(TurnLock.take(codex_home(self._env, folder), run.input.resume)) as lock:
            return await self._on_app_server(run, folder, lock)

    async def _on_app_server(self, run: Run[CodexTurn], folder: str, lock: TurnLock) -> CodexResult:
        # A killed worker's lock lasts as long as its app-server, because two app-servers would write one history.
        server = await AppServer.start(self._command, cwd=folder, env=self._env, limits=self._limits, kept=lock.fd)
        requests = Requests(self._assignment, self._put)
        within = timedelta(milliseconds=run.input.approval_timeout_ms)
        self._questions = Questions(server, self._events, requests, self._put, self._limits, within)
        listening = asyncio.create_task(server.listen(self._heard))
        work = asyncio.create_task(self._work(run, server, folder, lock))
        try:
            await asyncio.wait({listening, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._completed.done():  # what ends after the turn does not undo it
                listening.result()
            return await work
        except asyncio.CancelledError:
            if self._assignment.cancel.requested:
                await self._interrupt(server)
            raise
        except AgentFailure:
            await self._questions.close()
            raise
        finally:
            await self._questions.stop()
            for task in (listening, work):
                task.cancel()
            await asyncio.gather(listening, work, return_exceptions=True)
            left = await server.close()
            if left:
                run.logger.warning("%d processes of Codex could not be ended", left)

    async def _refuse_what_was_begun(self, run: Run[CodexTurn]) -> None:
        """Refuse a turn that was begun: nobody knows what it had done when its worker was lost."""
        if run.attempt == 1:
            return
        async for event in self._assignment.events("step.completed"):
            thread = event.body.step_completed.result_json
            message = (
                f"the worker was lost in the turn, which is not taken again; look, and resume Codex thread {thread}"
            )
            raise AgentFailure("codex_turn_lost", message)

    async def _work(self, run: Run[CodexTurn], server: AppServer, folder: str, lock: TurnLock) -> CodexResult:
        given = run.input
        try:
            told = await server.initialize()
            thread = await self._thread(server, given, folder)
            lock.name(self._events.thread_id)
            await self._put(self._events.item("thread", _facts(told, thread)))

            async def begins() -> str:
                return self._events.thread_id

            await run.step("turn", begins)
            said = [{"type": "text", "text": given.prompt}]
            started = await server.request("turn/start", {"threadId": self._events.thread_id, "input": said})
        except RequestRefused as refused:
            raise AgentFailure("codex_refused", f"the app-server refused: {refused}") from None
        self._events.turn_id = _text(started.get("turn"), "id") or self._events.turn_id
        turn = await self._until_completed(run, server)
        return self._result(turn)

    async def _thread(self, server: AppServer, given: CodexTurn, folder: str) -> Message:
        options = {"cwd": folder, "approvalPolicy": given.approval, "sandbox": given.sandbox}
        if given.model:
            options["model"] = given.model
        try:
            if given.resume:
                told = await server.request("thread/resume", {**options, "threadId": given.resume})
            else:
                told = await server.request("thread/start", options)
        except RequestRefused as refused:
            if not given.resume:
                raise
            message = (
                f"the Codex thread can't be resumed by this worker ({refused.message}); use the worker that has it"
            )
            raise AgentFailure("codex_thread_not_resumed", message) from None
        self._events.thread_id = _text(told.get("thread"), "id") or given.resume
        self._events.model = _text(told, "model")
        if not self._events.thread_id:
            message = "the app-server opened a thread and did not name it; see which Codex the worker has"
            raise AgentFailure("codex_bad_message", message)
        return told

    async def _until_completed(self, run: Run[CodexTurn], server: AppServer) -> Mapping[str, Any]:
        steering = asyncio.create_task(steer(run, server, self._events, self._put, self._events.turn_id))
        timeout_s = run.input.timeout_ms / 1000 if run.input.timeout_ms else None
        try:
            waiting: set[asyncio.Future[Any]] = {steering, self._completed}
            done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                await self._interrupt(server)
                raise AgentFailure("timeout", f"the turn took longer than its {run.input.timeout_ms} ms and was ended")
            if self._completed not in done:
                steering.result()
            return dict(await self._completed)
        finally:
            steering.cancel()
            await asyncio.gather(steering, return_exceptions=True)

    async def _interrupt(self, server: AppServer) -> None:
        """Give the turn a moment to end by itself."""
        assert self._questions is not None
        await self._questions.close()
        if not self._events.turn_id or self._completed.done():
            return
        grace_ms = self._limits.interrupt_grace_ms
        if deadline_ms := self._assignment.cancel.deadline_ms:  # leave the authority time to store the finish
            grace_ms = min(grace_ms, deadline_ms // 2)
        params = {"threadId": self._events.thread_id, "turnId": self._events.turn_id}

        async def ended() -> None:
            await server.request("turn/interrupt", params)
            await asyncio.shield(self._completed)

        # Not `asyncio.timeout`: in a task that was canceled before, CPython 3.11.2 turns it into another cancellation.
        with contextlib.suppress(TimeoutError, AgentFailure, RequestRefused):
            await asyncio.wait_for(ended(), grace_ms / 1000)
        if not self._completed.done():
            await self._put(self._events.turn({"id": self._events.turn_id, "status": "interrupted"}))

    async def _heard(self, message: Message) -> None:
        """Handle what the app-server says by itself, in order."""
        method = message["method"]
        assert self._questions is not None
        if "id" in message:
            await self._questions.asked(message)
            return
        params = message["params"] if isinstance(message.get("params"), dict) else {}
        own = params.get("threadId") == self._events.thread_id
        if method == "item/started":
            self._questions.note(params)
        turn_id = _text(params.get("turn"), "id")
        if method in ("turn/started", "turn/completed") and own:
            self._events.turn_id = self._events.turn_id or turn_id  # before we saw what turn/start answered
        is_end = method == "turn/completed" and own and turn_id != "" and turn_id == self._events.turn_id
        if is_end:
            await self._questions.close()
        for event in self._events.of(method, params):
            await self._put(event)
        if is_end and not self._completed.done():
            self._completed.set_result(params["turn"])

    def _result(self, turn: Mapping[str, Any]) -> CodexResult:
        status, words = turn.get("status"), error_words(turn.get("error"), self._limits.max_message_chars)
        if status == "completed":
            return CodexResult(self._events.thread_id, self._events.turn_id, self._events.last_message)
        if status == "interrupted":
            raise AgentFailure(
                "codex_interrupted", "the turn was interrupted by Codex itself, or by who uses its thread"
            )
        raise AgentFailure("codex_turn_failed", words or "the turn failed, and Codex does not say why")

    async def _put(self, event: EventBody) -> None:
        check_rules(event)
        await self._emit(event)


def _folder(asked: str) -> str:
    try:
        folder = asked or os.getcwd()  # noqa: PTH109 - a plain string goes to the app-server
    except OSError:
        message = "the worker's own directory is gone; name another one, or start the worker in one that exists"
        raise AgentFailure("working_directory_not_found", message) from None
    if not os.path.isdir(folder):  # noqa: PTH112
        message = f"there is no directory {folder!r} on the worker's machine; name one that exists there"
        raise AgentFailure("working_directory_not_found", message)
    return folder


def _facts(told: Message, thread: Message) -> dict[str, object]:
    """Return what the log says about the app-server and the thread: no path of its own folders."""
    names = ("model", "modelProvider", "cwd", "approvalPolicy", "sandbox")
    return {"userAgent": told.get("userAgent"), **{name: thread.get(name) for name in names}}


def _text(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""
