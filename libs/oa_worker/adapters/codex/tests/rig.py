"""A turn in memory: an adapter, a log that is a list, and an app-server that is real or does what a test wrote down."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oa_testing.peers.codex import codex_environment, installed_codex
from oa_testing.peers.model_server import ModelServer
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.codex.adapter import CodexAdapter, CodexSettings
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.tests import fake_app_server
from oa_worker.sdk.adapter import Assignment, CancelSignal, News
from openagents.codex.v1.event_pb2 import CodexEvent, ControlOutcome, TurnStatus
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import HeldLease

RUN_ID = "run_00000000000000000000000000"
THREAD, TURN = "thread-1", "turn-1"
QUICK = CodexLimits(interrupt_grace_ms=300, overload_first_ms=1, overload_max_ms=2)
Act = Mapping[str, Any]


@dataclass
class Log:
    """The run's log. `answers`: title of a request -> option or text, at once, or several for several times; others
    wait for `answer`. `in_vain`: what counts when a request's time is over."""

    answers: Mapping[str, str | list[str]] = field(default_factory=dict)
    in_vain: str = "no"
    events: list[pb.EventBody] = field(default_factory=list)
    news: News = field(default_factory=News)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def emit(self, event: pb.EventBody) -> None:
        """Append, as a worker does."""
        self.append(event)
        opened = event.request_opened
        if event.HasField("request_opened") and (said := self.answers.get(opened.title)):
            self.answer(opened.request_id, said if isinstance(said, str) else said.pop(0))

    def append(self, event: pb.EventBody) -> None:
        """Append, as anybody does."""
        self.events.append(event)
        self.news.tell()
        self.changed.set()

    def answer(self, request_id: str, said: str) -> None:
        """Somebody answers, as the authority would take it."""
        (kind,) = [asked.kind for asked in self.opened if asked.request_id == request_id]
        how = {"text" if kind == pb.REQUEST_KIND_TEXT else "option": said}
        answered = pb.RequestAnswered(request_id=request_id, answered_by="usr_test", **how)
        self.append(pb.EventBody(request_answered=answered))

    def send(self, value: object) -> None:
        """Somebody says something."""
        self.append(pb.EventBody(input_received=pb.InputReceived(sent_by="usr_test", input_json=json.dumps(value))))

    async def read(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        """See `ReadRun`."""
        for seq, event in enumerate(list(self.events), start=1):
            kind = (event.WhichOneof("kind") or "").replace("_", ".", 1)
            if seq > after_seq and (kind in types or not types):
                yield pb.RunEvent(run_id=RUN_ID, seq=seq, body=event).SerializeToString()

    async def expire(self, lease: HeldLease, request_id: str) -> None:
        """The time of a request is over."""
        self.append(pb.EventBody(request_expired=pb.RequestExpired(request_id=request_id, option=self.in_vain)))

    async def until(self, holds: Callable[[Log], bool]) -> None:
        """Wait until something holds of it."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(self):
                self.changed.clear()
                await self.changed.wait()

    def text(self, stream: int = pb.TEXT_STREAM_ASSISTANT) -> str:
        """All of one stream."""
        return b"".join(e.text_delta.data for e in self.events if e.text_delta.stream == stream).decode()

    @property
    def kinds(self) -> list[str]:
        """What happened, in words; neighbors of one kind once."""
        words = [_words(event) for event in self.events]
        return [word for at, word in enumerate(words) if at == 0 or word != words[at - 1]]

    @property
    def messages(self) -> list[str]:
        """Whole messages."""
        return [event.message.text for event in self.events if event.HasField("message")]

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Contents of the items of one type."""
        found = [event.codex_event.item for event in self.events if event.codex_event.HasField("item")]
        return [dict(item.content) for item in found if item.item_type == kind]

    @property
    def opened(self) -> list[pb.RequestOpened]:
        """What people were asked."""
        return [event.request_opened for event in self.events if event.HasField("request_opened")]

    @property
    def titles(self) -> list[str]:
        """Of what people were asked."""
        return [opened.title for opened in self.opened]

    @property
    def whys(self) -> list[str]:
        """What people are told of what became of requests."""
        found = [event.codex_event for event in self.events if event.codex_event.HasField("control_receipt")]
        return [event.control_receipt.message for event in found]

    @property
    def receipts(self) -> dict[str, str]:
        """Request -> what became of it."""
        found = [e.codex_event.control_receipt for e in self.events if e.codex_event.HasField("control_receipt")]
        assert len({receipt.request_id for receipt in found}) == len(found), "one for each"
        return {receipt.request_id: _short(ControlOutcome.Name(receipt.outcome)) for receipt in found}


def _short(name: str) -> str:
    return name.rpartition("_")[2].lower()


def _words(event: pb.EventBody) -> str:
    kind = event.WhichOneof("kind") or ""
    if kind == "text_delta":
        return _short(pb.TextStream.Name(event.text_delta.stream))
    return _codex_words(event.codex_event) if kind == "codex_event" else kind


def _codex_words(event: CodexEvent) -> str:
    match event.WhichOneof("kind"):
        case "turn":
            return f"turn {_short(TurnStatus.Name(event.turn.status))}"
        case "item":
            return f"item {event.item.item_type}"
        case kind:
            return str(kind)


def assignment(log: Log, given: Mapping[str, object], attempt: int = 1) -> Assignment:
    """The run of a turn."""
    spec = pb.RunSpec(adapter="codex", agent=pb.AgentSpec(input_json=json.dumps(given)))
    return Assignment(RUN_ID, attempt, attempt, spec, CancelSignal(), read=log.read, news=log.news, expire=log.expire)


@asynccontextmanager
async def at_work(adapter: CodexAdapter, run: Assignment, log: Log) -> AsyncIterator[asyncio.Task[pb.RunFinished]]:
    """The run while it is worked on; it is taken away at the end."""
    async with asyncio.timeout(PATIENCE_S):
        working = asyncio.create_task(adapter.run(run, log.emit))
        try:
            yield working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def scripted(
    folder: Path, script: Mapping[str, Sequence[Act]], limits: CodexLimits = QUICK, home: Path | None = None
) -> CodexAdapter:
    """An adapter whose Codex is `fake_app_server`. What the script lacks is answered as a turn goes well."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.json").write_text(json.dumps({**WELL, **script}))
    program = folder / "codex"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_app_server.__file__} {folder}/script.json "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "CODEX_HOME": str(home or folder / "codex-home")}
    return CodexAdapter(CodexSettings(program=str(program), environment=environment), limits)


def heard(folder: Path, method: str) -> list[dict[str, Any]]:
    """What the scripted app-server was told under this method, or as the answer to its request of this id."""
    said = [json.loads(line) for line in (folder / "heard").read_text().splitlines()]
    return [one for one in said if one.get("method", str(one.get("id"))) == method]


def real(folder: Path, model: ModelServer, limits: CodexLimits = QUICK, more: str = "") -> CodexAdapter:
    """An adapter with the real Codex; `more`: of its config.toml. Skips the test where it is not installed."""
    environment = codex_environment(folder / "codex-home", model.base_url, more)
    return CodexAdapter(CodexSettings(program=str(installed_codex()), environment=environment), limits)


def said(method: str, **params: Any) -> Act:
    """The app-server says something of our turn."""
    return {"say": {"method": method, "params": {"threadId": THREAD, "turnId": TURN, **params}}}


def completed(status: str = "completed", **more: Any) -> Act:
    """The turn is over."""
    return said("turn/completed", turn={"id": TURN, "status": status, "items": [], **more})


def asks(number: int, method: str = "item/commandExecution/requestApproval", **params: Any) -> Act:
    """The app-server asks for something."""
    return {"say": {"method": method, "id": number, "params": {**MINE, **params}}}


async def play(
    folder: Path, *acts: Act, log: Log | None = None, limits: CodexLimits | None = None, **given: Any
) -> Log:
    """A turn with these acts in it."""
    log = log or Log()
    adapter = scripted(folder, {"turn/start": [BEGUN, *acts, completed()]}, limits or CodexLimits())
    run = assignment(log, {"prompt": "p", "working_directory": str(folder), **given})
    async with asyncio.timeout(PATIENCE_S):
        finish = await adapter.run(run, log.emit)
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED, finish.message
    return log


def answer_to(folder: Path, number: int) -> dict[str, Any]:
    """What the app-server was told."""
    (answer,) = heard(folder, str(number))
    return answer


MINE = {"threadId": THREAD, "turnId": TURN, "itemId": "i"}
BEGUN: Act = {"result": {"turn": {"id": TURN, "status": "inProgress"}}}
WELL: dict[str, list[Act]] = {
    "initialize": [{"result": {"userAgent": "fake/1"}}],
    "thread/start": [{"result": {"thread": {"id": THREAD}, "model": "fake-model"}}],
    "turn/start": [BEGUN, completed()],
}
