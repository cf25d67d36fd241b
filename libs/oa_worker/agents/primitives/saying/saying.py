"""What an agent says: text, tool calls, usage, checks, and events of its own type."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from types import TracebackType

from oa_base.refusal import Refusal
from oa_wire.given import check_count, check_flag, check_text, check_text_arguments
from oa_wire.rules import check_rules
from oa_worker.agents.failures import words_of
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.loops import check_loop
from oa_worker.agents.primitives.saying.json_values import struct_of, value_of
from oa_worker.agents.primitives.saying.progress import Progress
from oa_worker.sdk.adapter import Emit
from openagents.runtime.v1 import event_pb2 as pb


class RunLog:
    """The run's log. It checks each event by itself, so that an invalid event is refused where it was made."""

    def __init__(self, emit: Emit, limits: AgentLimits) -> None:
        """Call it in the event loop of the agent's function."""
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self.limits = limits

    def check_loop(self) -> None:
        """Raise Refusal `invalid_value` in another event loop than that of the agent's function."""
        check_loop(self._loop)

    async def append(self, event: pb.EventBody) -> None:
        """Append in order. Raises Refusal for an event that no authority would take, and as `check_loop` does."""
        self.check_loop()
        check_rules(event)
        size, max_bytes = event.ByteSize(), self.limits.max_event_bytes
        if event.WhichOneof("kind") != "text_delta" and size > max_bytes:
            text = f"the event has {size} bytes; say at most {max_bytes} at once"
            raise Refusal("payload_too_large", text, field=event.WhichOneof("kind") or "")
        await self._emit(event)


class Assistant:
    """Text that the agent says: pieces as they come, then the message that they form.

    A block that ends with an exception makes no message; its pieces remain.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._pieces: list[str] = []
        self._unsaid: list[str] = []
        self._unsaid_bytes = 0

    @property
    def text(self) -> str:
        """Everything that was written."""
        return "".join(self._pieces)

    async def write(self, text: str) -> None:
        """Say a piece of the text; it goes out at once. Waits while the log is behind."""
        check_text(text, "text")
        if "\0" in text:
            raise Refusal("invalid_value", "text must not hold the character NUL; take it out", field="text")
        max_bytes = self._log.limits.max_message_bytes
        for start in range(0, len(text), max_bytes // 4):  # a character has at most four bytes
            piece = text[start : start + max_bytes // 4]
            data = piece.encode()
            if self._unsaid_bytes + len(data) > max_bytes:
                await self._say()
            await self._log.append(pb.EventBody(text_delta=pb.TextDelta(stream=pb.TEXT_STREAM_ASSISTANT, data=data)))
            self._pieces.append(piece)
            self._unsaid.append(piece)
            self._unsaid_bytes += len(data)

    async def _say(self) -> None:
        """Make a message of the text that has none yet."""
        text = "".join(self._unsaid)
        self._unsaid, self._unsaid_bytes = [], 0
        if text:
            await self._log.append(pb.EventBody(message=pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, text=text)))

    async def __aenter__(self) -> Assistant:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._say()


class ToolUse:
    """A call of a tool: recorded at the start of its block, and answered at the end with `result`.

    A block that ends with an exception answers that the tool failed, and with which exception.
    """

    def __init__(self, log: RunLog, call_id: str, name: str, arguments: Mapping[str, object] | None) -> None:
        self._log = log
        self._name = name
        self._arguments = arguments
        self.call_id = call_id
        self.result: object = None
        """The tool's answer: set it within the block."""

    async def __aenter__(self) -> ToolUse:
        call = pb.ToolCall(call_id=self.call_id, name=self._name, arguments=struct_of(self._arguments, "arguments"))
        await self._log.append(pb.EventBody(tool_call=call))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        answer = self.result if error is None else words_of(error, self._log.limits.max_failure_chars)
        answered = pb.ToolResult(call_id=self.call_id, failed=error is not None, result=value_of(answer, "result"))
        await self._log.append(pb.EventBody(tool_result=answered))


class Saying:
    """The things that a run's function may say. All of them go to the run's log, in order, once."""

    def __init__(self, log: RunLog, lease_epoch: int) -> None:
        self._log = log
        self._progress = Progress(log.append, log.limits.progress_interval_ms)
        # Unique in the run: no other worker ever has this epoch.
        self._call_ids = (f"e{lease_epoch}-c{number}" for number in itertools.count(1))

    def assistant(self) -> Assistant:
        """Say something as an assistant: `async with run.assistant() as out: await out.write(…)`."""
        return Assistant(self._log)

    def tool(self, name: str, arguments: Mapping[str, object] | None = None) -> ToolUse:
        """Record a call of a tool: `async with run.tool("search", {"q": "x"}) as call: call.result = …`."""
        check_text(name, "name")
        return ToolUse(self._log, next(self._call_ids), name, arguments)

    async def progress(self, text: str, *, done: int | None = None, total: int | None = None) -> None:
        """Report how far the run has come, for people: `await run.progress("3 of 10 files", done=3, total=10)`.

        Report as often as you like. Reports that come faster than one per second are joined: the newest one is stored,
        and the last one before the run ends.
        """
        self._log.check_loop()
        await self._progress.report(text, done, total)

    async def said_all(self) -> None:
        """Store everything that was said and is not stored yet, because the run ends. The worker calls this."""
        await self._progress.last()

    def say_no_more(self) -> None:
        """Store nothing more: the run is over, or no longer this worker's. The worker calls this."""
        self._progress.forget()

    async def usage(self, model: str = "", *, input: int = 0, output: int = 0, cached: int = 0) -> None:
        """Report the tokens used since the last report; `cached` of the input tokens came from a cache."""
        check_text(model, "model")
        for name, number in (("input", input), ("output", output), ("cached", cached)):
            check_count(number, name)
        usage = pb.Usage(model=model, input_tokens=input, output_tokens=output, cached_input_tokens=cached)
        await self._log.append(pb.EventBody(usage=usage))

    async def verification(self, name: str, *, passed: bool, detail: str = "") -> None:
        """Report the result of a check that the agent made of its own work."""
        check_text_arguments(name=name, detail=detail)
        check_flag(passed, "passed")
        checked = pb.Verification(name=name, passed=passed, detail=detail)
        await self._log.append(pb.EventBody(verification=checked))

    async def emit(self, type: str, data: Mapping[str, object] | None = None) -> None:
        """Append an event of your own type, for example "acme.progress"."""
        check_text(type, "type")
        await self._log.append(pb.EventBody(custom=pb.Custom(type=type, data=struct_of(data, "data"))))
