"""One `codex app-server`: its process, our requests and its answers, and what it says by itself, in order.

It speaks JSON lines over its standard input and output: JSON-RPC without the version's header. Messages that it sends
by itself go to `heard`, one at a time: while `heard` waits, nothing is read, and the kernel stops the app-server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from oa_base.backoff import Backoff
from oa_base.version import VERSION
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.lines import BadLine, Lines
from oa_worker.adapters.exec.process import Process
from oa_worker.agents.failures import AgentFailure, harmless
from oa_worker.sdk.limits import DEFAULT_EXEC_LIMITS

Message = Mapping[str, Any]
Heard = Callable[[Message], Awaitable[None]]
"""Gets each notification and each request of the app-server, in order."""

OVERLOADED = -32001
"""The app-server's code for "come back later"."""
NOT_SUPPORTED = -32601
_log = logging.getLogger("oa_worker.codex")


class RequestRefused(Exception):
    """The app-server answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.code = code
        self.message = message


class AppServer:
    """Start it with `start`, `listen` in a task of its own, and `close` it in any case.

    Every request may raise AgentFailure once the app-server can't answer any more, and RequestRefused.
    """

    def __init__(self, process: Process, limits: CodexLimits) -> None:
        self._process = process
        self._limits = limits
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._stderr = bytearray()
        self._over: AgentFailure | None = None

    @classmethod
    async def start(
        cls, command: Sequence[str], *, cwd: str | None, env: Mapping[str, str], limits: CodexLimits, kept: int
    ) -> AppServer:
        """Start the process. Raises AgentFailure.

        `kept`: a file descriptor that stays open until all that it starts is gone, even if this worker is killed.
        """
        try:
            process = await Process.start(command, cwd=cwd, env=env, limits=DEFAULT_EXEC_LIMITS, stdin=True, kept=kept)
        except FileNotFoundError:
            message = f"there is no program {command[0]!r} on the worker's machine; install Codex there, or name it"
            raise AgentFailure("codex_not_found", f"{message} with OA_CODEX_PROGRAM") from None
        except (OSError, ValueError) as error:
            message = f"{command[0]!r} can't be started ({error}); see to that on the worker's machine"
            raise AgentFailure("codex_not_started", message) from None
        return cls(process, limits)

    async def listen(self, heard: Heard) -> None:
        """Listen to the app-server until its end, which always raises AgentFailure."""
        lines = Lines(self._limits.max_line_bytes)
        ending = asyncio.create_task(self._last_call())
        try:
            while chunk := await self._process.outputs.read():
                stream, data = chunk
                if stream == 2:
                    self._stderr = (self._stderr + data)[-self._limits.stderr_bytes :]
                    continue
                for message in lines.feed(data):
                    await self._take(message, heard)
            raise await self._death()
        except BadLine as bad:
            failure = AgentFailure("codex_bad_message", f"the app-server says what can't be read: {bad}")
            self._end(failure)
            raise failure from None
        except AgentFailure as failure:
            self._end(failure)
            raise
        finally:
            ending.cancel()

    async def _last_call(self) -> None:
        """Read the last output once it has ended. Don't wait for processes of its own that hold its outputs open."""
        await self._process.exited.wait()
        limits = DEFAULT_EXEC_LIMITS
        self._process.outputs.last_call(limits.leftover_grace_ms / 1000, limits.foreign_output_bytes)

    async def initialize(self) -> Message:
        """Send the first request. Return what the app-server says about itself."""
        client = {"name": "openagents", "title": "OpenAgents Runtime", "version": VERSION}
        told = await self.request("initialize", {"clientInfo": client})
        await self._send({"method": "initialized"})
        return told

    async def request(self, method: str, params: Message) -> Message:
        """Send a request, again while the app-server is overloaded. Return its answer, which is an object."""
        backoff = Backoff(self._limits.overload_first_ms, self._limits.overload_max_ms)
        for attempt in range(self._limits.overload_attempts):
            if attempt:
                await asyncio.sleep(backoff.ceiling_ms(attempt - 1) / 1000)
            try:
                return await self._request_once(method, params)
            except RequestRefused as refused:
                if refused.code != OVERLOADED:
                    raise
        message = f"the app-server was too busy for {method}, {self._limits.overload_attempts} times; try again later"
        raise AgentFailure("codex_overloaded", message)

    async def answer(self, request_id: object, result: Message) -> None:
        """Answer a request of the app-server."""
        await self._send({"id": request_id, "result": result})

    async def refuse(self, request_id: object, message: str) -> None:
        """Answer a request of the app-server that we don't know how to answer."""
        await self._send({"id": request_id, "error": {"code": NOT_SUPPORTED, "message": message}})

    async def close(self) -> int:
        """End the app-server and all that it started; return how many processes could not be ended."""
        await self._process.close()
        return self._process.left

    async def _request_once(self, method: str, params: Message) -> Message:
        if self._over is not None:
            raise self._over
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limits.answer_timeout_ms / 1000):
                await self._send({"id": number, "method": method, "params": params})
                told = await answer
        except TimeoutError:
            message = f"the app-server did not answer {method} within {self._limits.answer_timeout_ms} ms; try again"
            raise AgentFailure("codex_not_answering", message) from None
        finally:
            del self._answers[number]
        if "error" in told:
            raise _refused(method, told["error"], self._limits.max_message_chars)
        result = told.get("result")
        return result if isinstance(result, dict) else {}

    async def _take(self, message: Message, heard: Heard) -> None:
        if "method" in message:
            await heard(message)
            return
        waiting = self._answers.get(message["id"]) if isinstance(message["id"], int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _send(self, message: Message) -> None:
        assert self._process.stdin is not None  # it was started with one
        # Once nobody reads it any more, its outputs end as well, and `listen` says so.
        await self._process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _death(self) -> AgentFailure:
        """Return the failure after its outputs have ended: it has ended too, or can't be used any more."""
        await self._process.end(0)
        status = self._process.returncode
        how = "was killed" if status is None else f"was ended by signal {-status}" if status < 0 else f"ended: {status}"
        _log.warning("a codex app-server %s in the middle of a turn; its last words: %s", how, self._last_words())
        return AgentFailure(
            "codex_died", f"the app-server {how}, in the middle of its turn; the worker's log may say why"
        )

    def _last_words(self) -> str:
        return harmless(self._stderr.decode(errors="replace"), self._limits.stderr_bytes)

    def _end(self, failure: AgentFailure) -> None:
        """Fail all requests, because nobody answers any more."""
        self._over = failure
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(failure)


def _refused(method: str, error: Any, max_chars: int) -> RequestRefused:
    told = error if isinstance(error, dict) else {}
    code = told.get("code")
    message = harmless(str(told.get("message", "")), max_chars)
    return RequestRefused(method, code if isinstance(code, int) else 0, message)
