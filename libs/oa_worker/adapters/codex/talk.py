"""What goes into a turn while it runs: people's answers to what Codex asks, and what people say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from oa_base.refusal import Refusal
from oa_worker.adapters.codex.events import TurnEvents
from oa_worker.adapters.codex.fitting import cut, storable
from oa_worker.adapters.codex.inputs import CodexTurn
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.server import AppServer, Message, RequestRefused
from oa_worker.agents.requests import Requests, Settled
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Emit
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

_MAX_TITLE_CHARS = 200
_MAX_DETAIL_BYTES = 16_000
_MAX_KNOWN_CHANGES = 64


@dataclass(frozen=True)
class Question:
    """What people are asked, and how their answer is told. `action`: its name in the log."""

    action: str
    title: str
    detail: str
    yes: Mapping[str, Any]
    no: Mapping[str, Any]


class Approvals:
    """Requests of the app-server that people decide. A request that nobody has approved is never approved."""

    def __init__(
        self,
        server: AppServer,
        events: TurnEvents,
        requests: Requests,
        put: Emit,
        limits: CodexLimits,
        within: timedelta,
    ) -> None:
        self._server = server
        self._events = events
        self._requests = requests
        self._put = put
        self._limits = limits
        self._within = within
        self._numbers = itertools.count(1)
        self._open: dict[str, asyncio.Task[None]] = {}
        self._settled: set[asyncio.Task[None]] = set()
        self._changes: dict[str, str] = {}

    def note(self, params: Message) -> None:
        """An item has begun: people who approve a change of files are shown the change."""
        item = params.get("item")
        if isinstance(item, dict) and item.get("type") == "fileChange" and len(self._changes) < _MAX_KNOWN_CHANGES:
            self._changes[str(item.get("id"))] = _changes_words(item.get("changes"))

    async def asked(self, message: Message) -> None:
        """The app-server asks for something."""
        method, request_id = message["method"], message.get("id")
        params = message["params"] if isinstance(message.get("params"), dict) else {}
        question = self._question(method, params)
        if question is None:
            await self._put(self._events.item(method, params, thread_id=params.get("threadId")))
            await self._server.refuse(request_id, f"{method} is not supported by this client")
            return
        if len(self._open) >= self._limits.max_open_approvals:
            await self._server.answer(request_id, question.no)
            return
        number = f"r{next(self._numbers)}"
        detail = self._events.item("", params).codex_event.item.content
        asked = codex_pb2.ControlRequest(request_id=number, action=question.action, detail=detail)
        await self._put(self._events.report(control_request=asked))
        self._open[number] = asyncio.create_task(self._decided(number, request_id, question))

    async def close(self) -> None:
        """The turn is over, or to end: what is not decided is not approved, and is receipted so."""
        undecided = await self.stop()
        for number in undecided:
            await self._receipt(number, codex_pb2.CONTROL_OUTCOME_EXPIRED, "the turn was over before it was decided")

    async def stop(self) -> list[str]:
        """Wait for nobody any more; returns what was not decided."""
        undecided, self._open = self._open, {}
        for task in undecided.values():
            task.cancel()
        await asyncio.gather(*undecided.values(), *self._settled, return_exceptions=True)
        return list(undecided)

    async def _decided(self, number: str, request_id: object, question: Question) -> None:
        opened = pb.RequestOpened(
            kind=pb.REQUEST_KIND_APPROVAL, title=question.title, detail=question.detail, default_option="no"
        )
        settled, why = Settled("no", "", ""), ""
        try:
            settled = await self._requests.settle(opened, self._within)
        except Refusal as refusal:
            why = refusal.message
        # From here on nothing cuts this off: what is told to the app-server is receipted.
        if task := self._open.pop(number, None):
            self._settled.add(task)
            task.add_done_callback(self._settled.discard)
        approved = settled.option == "yes"
        await self._server.answer(request_id, question.yes if approved else question.no)
        if approved:
            outcome = codex_pb2.CONTROL_OUTCOME_APPLIED
        elif why:
            outcome = codex_pb2.CONTROL_OUTCOME_FAILED
        else:
            outcome = codex_pb2.CONTROL_OUTCOME_DECLINED if settled.answered_by else codex_pb2.CONTROL_OUTCOME_EXPIRED
        await self._receipt(number, outcome, why)

    async def _receipt(self, number: str, outcome: codex_pb2.ControlOutcome.ValueType, message: str = "") -> None:
        await self._put(receipt(self._events, number, outcome, message))

    def _question(self, method: str, params: Message) -> Question | None:
        why = str(params.get("reason") or "")
        accepts, declines = {"decision": "accept"}, {"decision": "decline"}
        match method:
            case "item/commandExecution/requestApproval":
                command, where = str(params.get("command") or "a command"), str(params.get("cwd") or "")
                detail = _detail(command, f"In {where}." if where else "", why)
                return Question("approve_command", _title(f"Run {command}"), detail, accepts, declines)
            case "item/fileChange/requestApproval":
                changes = self._changes.get(str(params.get("itemId")), "")
                root = params.get("grantRoot")
                detail = _detail(f"And write anywhere below {root}." if root else "", why, changes)
                return Question("approve_file_change", "Change files?", detail, accepts, declines)
            case "item/permissions/requestApproval":
                wanted = params.get("permissions") or {}
                yes = {"permissions": wanted, "scope": "turn"}
                detail = _detail(str(wanted), why)
                return Question(
                    "approve_permissions", "Give more rights for this turn?", detail, yes, {"permissions": {}}
                )
        return None


async def steer(run: Run[CodexTurn], server: AppServer, events: TurnEvents, put: Emit, turn_id: str) -> None:
    """Hand to the turn what people say to the run, as it comes, without end. Each is receipted.

    Raises Refusal once the run is no longer this worker's, and AgentFailure once the app-server is gone.
    """
    for number in itertools.count(1):
        outcome, message = codex_pb2.CONTROL_OUTCOME_FAILED, ""
        try:
            text = await run.receive(str)
            said = {"type": "text", "text": text}
            params = {"threadId": events.thread_id, "expectedTurnId": turn_id, "input": [said]}
            await server.request("turn/steer", params)
            outcome = codex_pb2.CONTROL_OUTCOME_APPLIED
        except Refusal as refusal:
            if refusal.reason != "invalid_value":
                raise
            message = "a turn takes a text; send one"
        except RequestRefused as refused:
            message = refused.message
        await put(receipt(events, f"input-{number}", outcome, message))


def receipt(events: TurnEvents, number: str, outcome: codex_pb2.ControlOutcome.ValueType, message: str) -> pb.EventBody:
    """What became of a request or of an input."""
    return events.report(control_receipt=codex_pb2.ControlReceipt(request_id=number, outcome=outcome, message=message))


def _title(words: str) -> str:
    line = " ".join(storable(words).split())
    return f"{line}?" if len(line) < _MAX_TITLE_CHARS else f"{line[: _MAX_TITLE_CHARS - 2]}…?"


def _detail(*parts: str) -> str:
    return cut(storable("\n\n".join(part for part in parts if part)), _MAX_DETAIL_BYTES)


def _changes_words(changes: Any) -> str:
    found = [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []
    words = "\n\n".join(f"{change.get('path', '')}\n{change.get('diff', '')}" for change in found)
    return cut(storable(words), _MAX_DETAIL_BYTES)
