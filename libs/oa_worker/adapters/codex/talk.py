"""What goes into a turn while it runs: people's answers to Codex's questions, and what people say."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

from oa_base.refusal import Refusal
from oa_worker.adapters.codex.asking.elicitation import elicitation
from oa_worker.adapters.codex.asking.questions import (
    EXPIRED,
    FAILED,
    Outcome,
    Question,
    Reply,
    changes_words,
    command,
    file_change,
    permissions,
    refusal,
)
from oa_worker.adapters.codex.asking.user_input import user_input
from oa_worker.adapters.codex.events import TurnEvents
from oa_worker.adapters.codex.inputs import CodexTurn
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.server import AppServer, Message, RequestRefused
from oa_worker.agents.primitives.requests import Requests, Settled
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Emit
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

_MAX_KNOWN_CHANGES = 64


class Questions:
    """Requests of the app-server that people decide. It is told nothing that is not in the run's log."""

    def __init__(
        self,
        server: AppServer,
        events: TurnEvents,
        requests: Requests,
        put: Emit,
        limits: CodexLimits,
        within: timedelta,
    ) -> None:
        """`within`: how long people have for each request of the run."""
        self._server = server
        self._events = events
        self._requests = requests
        self._put = put
        self._limits = limits
        self._within = within
        self._open: dict[str, tuple[Question, asyncio.Task[None]]] = {}
        self._settled: set[asyncio.Task[None]] = set()
        self._changes: dict[str, str] = {}
        self._is_over = False
        """Whether the turn is over, or to end."""

    def note(self, params: Message) -> None:
        """Note an item that has begun: people who approve a change of files are shown the change."""
        item = params.get("item")
        if isinstance(item, dict) and item.get("type") == "fileChange" and len(self._changes) < _MAX_KNOWN_CHANGES:
            self._changes[str(item.get("id"))] = changes_words(item.get("changes"))

    async def asked(self, message: Message) -> None:
        """Handle a request of the app-server."""
        method, request_id = message["method"], message.get("id")
        params = message["params"] if isinstance(message.get("params"), dict) else {}
        question = self._question(method, params)
        if question is None:
            await self._put(self._events.item(method, params, thread_id=params.get("threadId")))
            await self._server.refuse(request_id, f"{method} is not supported by this client")
            return
        max_requests, waiting = self._limits.max_open_requests, sum(other.requests for other, _ in self._open.values())
        if waiting + question.requests > max_requests:
            answer = f"more than {max_requests} requests would wait for people"
            question = refusal(question.action, question.unasked, answer)
        number = self._requests.name()
        detail = self._events.item("", params).codex_event.item.content
        asked = codex_pb2.ControlRequest(request_id=number, action=question.action, detail=detail)
        await self._put(self._events.report(control_request=asked))
        if self._is_over:
            await self._too_late(number)
            return
        self._open[number] = question, asyncio.create_task(self._decided(number, request_id, question))

    async def close(self) -> None:
        """End the questions of a turn that is over, or to end: undecided ones are not approved, and receipted so. So is
        what is asked later."""
        self._is_over = True
        undecided = await self.stop()
        for number in undecided:
            await self._too_late(number)

    async def stop(self) -> list[str]:
        """Stop waiting for people; return the questions that were not decided."""
        undecided, self._open = self._open, {}
        tasks = [task for _, task in undecided.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._settled, return_exceptions=True)
        return list(undecided)

    async def _decided(self, number: str, request_id: object, question: Question) -> None:
        names = itertools.chain([number], iter(self._requests.name, ""))

        async def ask(opened: pb.RequestOpened) -> Settled:
            opened.request_id = next(names)
            return await self._requests.settle(opened, self._within)

        try:
            reply = await question.decide(ask)
        except Refusal as refused:
            reply = Reply(question.unasked, FAILED, refused.message)
        # From here on nothing interrupts this: everything that the app-server is told is receipted.
        if number in self._open:
            _, task = self._open.pop(number)
            self._settled.add(task)
            task.add_done_callback(self._settled.discard)
        await self._server.answer(request_id, reply.result)
        await self._receipt(number, reply.outcome, reply.why)

    async def _too_late(self, number: str) -> None:
        await self._receipt(number, EXPIRED, "the turn was over before it was decided")

    async def _receipt(self, number: str, outcome: Outcome, message: str = "") -> None:
        await self._put(receipt(self._events, number, outcome, message))

    def _question(self, method: str, params: Message) -> Question | None:
        match method:
            case "item/commandExecution/requestApproval":
                return command(params)
            case "item/fileChange/requestApproval":
                return file_change(params, self._changes.get(str(params.get("itemId")), ""))
            case "item/permissions/requestApproval":
                return permissions(params)
            case "item/tool/requestUserInput":
                return user_input(params)
            case "mcpServer/elicitation/request":
                return elicitation(params, self._limits)
        return None


async def steer(run: Run[CodexTurn], server: AppServer, events: TurnEvents, put: Emit, turn_id: str) -> None:
    """Hand the turn what people say to the run, as it comes, without end. Each input is receipted.

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


def receipt(events: TurnEvents, number: str, outcome: Outcome, message: str) -> pb.EventBody:
    """Make the event that states what became of a request or of an input."""
    return events.report(control_receipt=codex_pb2.ControlReceipt(request_id=number, outcome=outcome, message=message))
