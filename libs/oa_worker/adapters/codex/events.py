"""The events of a run that a notification of the app-server becomes. Pure.

Text is reported as it comes, and whole messages once they are complete: the completed item is what counts. A
notification that this version does not know is kept as an item of its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oa_base.visible import storable
from oa_worker.adapters.codex.fitting import cut, fitted, pieces
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.agents.failures import harmless
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

Params = Mapping[str, Any]
MAX_NAME_CHARS = 128
"""The contract's limit on ids and types."""
_NOISE = frozenset(
    {
        "account/rateLimits/updated",
        "item/fileChange/outputDelta",
        "item/fileChange/patchUpdated",
        "item/plan/delta",
        "item/reasoning/summaryPartAdded",
        "mcpServer/startupStatus/updated",
        "remoteControl/status/changed",
        "serverRequest/resolved",
        "thread/started",
        "thread/status/changed",
        "turn/diff/updated",
    }
)
"""Notifications that say nothing more than a completed item does, or nothing about the run."""
_TEXTS = {
    "item/agentMessage/delta": pb.TEXT_STREAM_ASSISTANT,
    "item/commandExecution/outputDelta": pb.TEXT_STREAM_STDOUT,
    "item/reasoning/summaryTextDelta": pb.TEXT_STREAM_REASONING,
    "item/reasoning/textDelta": pb.TEXT_STREAM_REASONING,
}
_STATUSES = {
    "inProgress": codex_pb2.TURN_STATUS_IN_PROGRESS,
    "completed": codex_pb2.TURN_STATUS_COMPLETED,
    "failed": codex_pb2.TURN_STATUS_FAILED,
    "interrupted": codex_pb2.TURN_STATUS_INTERRUPTED,
}
_TOLD_WHEN_COMPLETE = frozenset({"agentMessage", "reasoning", "userMessage"})
"""Items whose start says nothing."""
_COUNTS = ("inputTokens", "outputTokens", "cachedInputTokens")


class TurnEvents:
    """The events of one turn of the Codex thread `thread_id`; other threads are those of helpers that Codex called."""

    def __init__(self, thread_id: str, model: str, limits: CodexLimits) -> None:
        self.thread_id = thread_id
        self.turn_id = ""
        """Empty until the turn has begun."""
        self.model = model
        self._limits = limits
        self._written: dict[str, int] = {}
        self._used: dict[str, int] | None = None
        self.last_message = ""
        """The assistant's newest whole message."""

    def of(self, method: str, params: Params) -> list[pb.EventBody]:
        """Return the events that a notification becomes; often none."""
        if method in _NOISE:
            return []
        own = params.get("threadId", self.thread_id) == self.thread_id
        if method in _TEXTS:
            return self._text(method, params) if own else []
        match method:
            case "item/started" | "item/completed":
                return self._item(params, complete=method == "item/completed", own=own)
            case "thread/tokenUsage/updated":
                return self._usage(params) if own else []
            case "turn/started" | "turn/completed" if own:
                return [self.turn(params.get("turn"), begins=method == "turn/started")]
        return [self.item(method, params, _name(params.get("turnId")), thread_id=params.get("threadId"))]

    def item(
        self, kind: str, content: Any, turn_id: str = "", item_id: str = "", thread_id: Any = None
    ) -> pb.EventBody:
        """Make an event of an item as it was sent, as far as an event may hold it."""
        made = codex_pb2.CodexItem(
            turn_id=turn_id,
            item_id=item_id,
            item_type=_name(kind) or "unnamed",
            content=fitted(content, self._limits.max_item_bytes, self._limits.max_nesting),
        )
        return self.report(thread_id, item=made)

    def report(self, thread_id: Any = None, **kind: Any) -> pb.EventBody:
        """Make one report of the thread."""
        return pb.EventBody(
            codex_event=codex_pb2.CodexEvent(codex_thread_id=_name(thread_id) or self.thread_id, **kind)
        )

    def turn(self, turn: Any, *, begins: bool = False) -> pb.EventBody:
        """Report the status of the turn; a turn that has ended in an unknown way has failed."""
        told = turn if isinstance(turn, dict) else {}
        status = "inProgress" if begins else str(told.get("status"))
        changed = codex_pb2.TurnStatusChanged(
            turn_id=_name(told.get("id")) or "unnamed",
            status=_STATUSES.get(status, codex_pb2.TURN_STATUS_FAILED),
            message=error_words(told.get("error"), self._limits.max_message_chars),
        )
        return self.report(turn=changed)

    def _text(self, method: str, params: Params) -> list[pb.EventBody]:
        delta = params.get("delta")
        if not isinstance(delta, str):
            return []
        data, stream = storable(delta).encode(), _TEXTS[method]
        if stream == pb.TEXT_STREAM_STDOUT:
            data = self._within(_name(params.get("itemId")), data)
        return [pb.EventBody(text_delta=pb.TextDelta(stream=stream, data=data))] if data else []

    def _within(self, item_id: str, data: bytes) -> bytes:
        """Return the part of a command's output that the log gets, with a note where the first bytes are left out."""
        max_bytes, before = self._limits.max_output_bytes, self._written.get(item_id, 0)
        self._written[item_id] = before + len(data)
        if before + len(data) <= max_bytes:
            return data
        kept = data[: max(0, max_bytes - before)]
        return kept + (
            b"" if before > max_bytes else f"\n[more than {max_bytes} bytes of output: the rest is left out]\n".encode()
        )

    def _item(self, params: Params, *, complete: bool, own: bool) -> list[pb.EventBody]:
        item = params.get("item")
        told = item if isinstance(item, dict) else {}
        kind, text = str(told.get("type", "")), told.get("text")
        if own and kind == "agentMessage" and isinstance(text, str):
            return self._message(storable(text)) if complete else []
        if not complete and kind in _TOLD_WHEN_COMPLETE:
            return []
        turn_id, item_id = _name(params.get("turnId")), _name(told.get("id"))
        return [self.item(kind, item, turn_id, item_id, params.get("threadId"))]

    def _message(self, text: str) -> list[pb.EventBody]:
        if not text:
            return []
        self.last_message = cut(text, self._limits.max_result_bytes)
        parts = pieces(text, self._limits.max_message_bytes)
        return [pb.EventBody(message=pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, text=part)) for part in parts]

    def _usage(self, params: Params) -> list[pb.EventBody]:
        """Report what was used since the last report. The thread's total counts, because a report may be made twice.

        A resumed thread reports the usage of its earlier turns once more.
        """
        total, last = (_counts(params.get("tokenUsage"), which) for which in ("total", "last"))
        before = self._used or {name: total[name] - last[name] for name in _COUNTS}
        self._used = total
        if not self.turn_id or params.get("turnId") != self.turn_id:
            return []
        used = {name: max(0, total[name] - before[name]) for name in _COUNTS}
        if not any(used.values()):
            return []
        made = pb.Usage(
            model=_name(self.model),
            input_tokens=used["inputTokens"],
            output_tokens=used["outputTokens"],
            cached_input_tokens=used["cachedInputTokens"],
        )
        return [pb.EventBody(usage=made)]


def error_words(error: Any, max_chars: int) -> str:
    """Return what the app-server says about a failure, for a reader of the run; empty if it says nothing."""
    told = error if isinstance(error, dict) else {}
    words = [str(told[name]) for name in ("message", "additionalDetails") if told.get(name)]
    return harmless(storable(": ".join(words)), max_chars)


def _counts(usage: Any, which: str) -> dict[str, int]:
    told = usage.get(which) if isinstance(usage, dict) else None
    found = told if isinstance(told, dict) else {}
    return {name: found[name] if isinstance(found.get(name), int) else 0 for name in _COUNTS}


def _name(value: Any) -> str:
    """Return an id or a type, cut to the contract's limit; empty for a value that is neither."""
    return storable(value)[:MAX_NAME_CHARS] if isinstance(value, str) else ""
