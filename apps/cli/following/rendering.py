"""Renders a run for a person: its events, one after the other, as text and lines. Pure: `tail` shows the result.

The run's output is shown as it was written. Everything else is a note of one line: tool calls, their results, usage and
the run's status. An agent's message is shown once: its deltas, and of the whole message only what they lack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.cli.following.stdin_notes import StdinNotes
from apps.cli.output import bytes_words, clipped, ms_words
from oa_client.core.models import RunAt
from oa_runlog import events


@dataclass(frozen=True)
class Wrote:
    """Output of the run, byte for byte."""

    stream: events.TextStream
    data: bytes


@dataclass(frozen=True)
class LineEnds:
    """The line that the run has begun on this stream ends here, if it has begun one."""

    stream: events.TextStream


@dataclass(frozen=True)
class Said:
    """A message that was not streamed."""

    text: str


@dataclass(frozen=True)
class Note:
    """A line about the run."""

    text: str
    style: str = "dim"


Shown = Wrote | LineEnds | Said | Note

_SPOKEN = events.TextStream.ASSISTANT
_TURNS = {events.TurnStatus.FAILED: "red", events.TurnStatus.INTERRUPTED: "yellow"}


class RunRenderer:
    """Renders one run, event by event. Notes are cut to `width` columns and say what was cut; None: they are whole."""

    def __init__(self, width: int | None = None) -> None:
        self._width = width
        self._streamed = bytearray()
        """The part of the agent's current message that was streamed."""
        self._tools: dict[str, str] = {}
        self._is_command = False
        self._has_terminal = False
        self._stdin = StdinNotes()

    def begin(self, at: RunAt) -> None:
        """Take note of what the run is, if it is shown from a snapshot on."""
        command = at.run.document.get("spec", {}).get("exec")
        self._is_command = command is not None
        self._has_terminal = command is not None and "terminal" in command

    def render(self, body: events.EventBody) -> list[Shown]:
        """Return what to show for the next event."""
        match body:
            case events.TextDelta(stream=stream, data=data):
                if stream is _SPOKEN:
                    self._streamed += data
                return [Wrote(stream, data)]
            case events.Message(role=events.MessageRole.ASSISTANT, text=text):
                return self._message(text)
            case events.Message(role=role, text=text):
                return [self._line(f"{role.value}: {text}")]
            case events.RunCreated(spec=events.RunSpec(input=events.ExecSpec(terminal=terminal))):
                self._is_command = True
                self._has_terminal = terminal is not None
            case events.RunStarted():
                self._streamed.clear()  # another attempt begins its message anew
        return _status(body) or self._talk(body) or self._work(body)

    def _message(self, text: str) -> list[Shown]:
        streamed = bytes(self._streamed)
        self._streamed.clear()
        whole = text.encode()
        if not streamed.strip():
            return [Said(text)]
        if whole.strip() == streamed.strip():
            return [LineEnds(_SPOKEN)]
        if whole.startswith(streamed):
            return [Wrote(_SPOKEN, whole[len(streamed) :]), LineEnds(_SPOKEN)]
        return [LineEnds(_SPOKEN), Said(text)]

    def _talk(self, body: events.EventBody) -> list[Shown]:
        """Render the exchange between the run and people."""
        match body:
            case events.Unknown():
                return [self._line("an event that only a newer oa can show")]
            case events.RequestOpened():
                return [self._line(_request_words(body), "yellow")]
            case events.RequestAnswered(request_id=request_id, option=option, text=text, answered_by=by):
                return [self._line(f"{by} answers {request_id}: {option or text}")]
            case events.RequestExpired(request_id=request_id, option=option):
                return [self._line(f"nobody answered {request_id} in time" + (f": {option} counts" if option else ""))]
            case events.ChildStarted(child_id=child_id, run_id=run_id, adapter=adapter):
                return [self._line(f"starts child {child_id}, {adapter}: {run_id}")]
            case events.ChildFinished(run_id=run_id, finish=finish):
                return [self._line(f"child {run_id} {finish_words(finish)}")]
            case events.InputReceived() if self._has_terminal:
                return []  # it is the terminal that shows what is typed: a note for each key would tear it apart
            case events.InputReceived(sent_by=sent_by, input_json=said) if self._is_command:
                words = self._stdin.words(sent_by, said)
                return [self._line(words)] if words else []
            case events.InputReceived(sent_by=sent_by, input_json=said):
                return [self._line(f"{sent_by} says {said}")]
            case _:
                return []

    def _work(self, body: events.EventBody) -> list[Shown]:
        """Render what the run's worker reports of its work."""
        match body:
            case events.ToolCall(call_id=call_id, name=name, arguments=arguments):
                self._tools[call_id] = name
                return [self._line(f"calls {name}{_json(arguments, arguments is not None)}")]
            case events.ToolResult(call_id=call_id, failed=failed, result=result, has_result=has_result):
                name = self._tools.pop(call_id, call_id)
                how = "failed" if failed else "answered"
                return [self._line(f"{name} {how}{_json(result, has_result)}", "yellow" if failed else "dim")]
            case events.Usage():
                return [self._line(_usage_words(body))]
            case events.Verification(name=name, passed=passed, detail=detail):
                words = f"check {name} {'passed' if passed else 'failed'}" + (f": {detail}" if detail else "")
                return [self._line(words, "green" if passed else "red")]
            case events.StepCompleted(ordinal=ordinal, name=name, result_json=result):
                return [self._line(f"step {ordinal}, {name}: {result}")]
            case events.CheckpointSaved(number=number, state_json=state):
                return [self._line(f"checkpoint {number}, {bytes_words(len(state.encode()))}: {state}")]
            case events.ProgressReported(text=text, done=done, total=total):
                return [self._line(f"progress: {progress_words(text, done, total)}")]
            case events.Custom(type=kind, data=data):
                return [self._line(f"{kind}{_json(data, data is not None)}")]
            case events.CodexEvent(kind=kind):
                return self._codex(kind)
            case _:
                return []

    def _codex(self, kind: events.CodexKind) -> list[Shown]:
        """Render what Codex does and asks."""
        match kind:
            case events.ControlRequest(action=action, detail=detail):
                return [self._line(f"asks for {action}{_json(detail, detail is not None)}", "yellow")]
            case events.ControlReceipt(outcome=outcome, message=message):
                return [self._line(f"the request was {outcome.value}" + (f": {message}" if message else ""))]
            case events.TurnStatusChanged(status=status, message=message) if status in _TURNS:
                words = f"the turn was {status.value}" if status is events.TurnStatus.INTERRUPTED else "the turn failed"
                return [self._line(words + (f": {message}" if message else ""), _TURNS[status])]
            case events.CodexItem() as item:
                return [self._line(words) for words in _item_words(item)]
            case _:
                return []

    def _line(self, text: str, style: str = "dim") -> Note:
        return Note(clipped(text, self._width), style)


def _request_words(asked: events.RequestOpened) -> str:
    answers = "/".join(asked.choices) or "a text"
    detail = f" ({asked.detail})" if asked.detail else ""
    return f"asks {asked.request_id}: {asked.title}{detail} [{answers}]; answer with oa request answer"


def _status(body: events.EventBody) -> list[Shown]:
    """Render a change of the run's status, whole; empty for other events."""
    match body:
        case events.RunStarted(worker_id=worker_id, attempt=attempt):
            return [Note(f"started on {worker_id}" + (f", attempt {attempt}" if attempt > 1 else ""))]
        case events.RunCancelRequested(reason=reason):
            return [Note("cancel was requested" + (f": {reason}" if reason else ""), "yellow")]
        case events.ExecutorLost(worker_id=worker_id, requeued=requeued):
            return [Note(f"{worker_id} was lost" + ("; waiting for another worker" if requeued else ""), "yellow")]
        case events.AttemptFailed(attempt=attempt, failure=failure):
            return [Note(f"attempt {attempt} {finish_words(failure)}; the run is tried again", "yellow")]
        case events.RunFinished():
            return [Note(finish_words(body), "green" if body.outcome is events.Outcome.SUCCEEDED else "red")]
        case _:
            return []


def state_words(at: RunAt) -> str:
    """Describe a run's state at some event, in one line."""
    run, totals = at.run, at.totals
    state = run.finish.outcome if run.finish else run.status
    words = [f"from event {run.latest_seq}: {state}" + (f", attempt {run.attempt}" if run.attempt > 1 else "")]
    if at.progress is not None:
        words.append(f"progress: {progress_words(at.progress.text, at.progress.done, at.progress.total)}")
    counts = ((totals["messages"], "messages"), (totals["tool_calls"], "tool calls"), (at.steps, "steps"))
    words += [f"{count} {what}" for count, what in counts if count]
    if totals["text_bytes"]:
        words.append(f"{bytes_words(totals['text_bytes'])} of output")
    if at.archived_bytes:
        words.append("its events are in the archive: `oa replay fetch` gets them")
    return " · ".join(words)


def finish_words(finish: events.RunFinished) -> str:
    """Describe how a run ended, in one line."""
    words = [finish.outcome.value]
    if finish.reason:
        words.append(f"({finish.reason})")
    if finish.message:
        words.append(f"- {finish.message}")
    measured = finish.exec
    if measured is not None:
        how = f"signal {measured.signal}" if measured.signal else f"exit code {measured.exit_code}"
        out, err = bytes_words(measured.stdout_bytes), bytes_words(measured.stderr_bytes)
        words.append(f"· {how} · {ms_words(measured.duration_ms)} · stdout {out}, stderr {err}")
    return " ".join(words)


def _item_words(item: events.CodexItem) -> list[str]:
    """Describe a command or a change of files by Codex, at its start and at its end. Other items give nothing."""
    content = item.content or {}
    status = str(content.get("status", ""))
    match item.item_type:
        case "commandExecution":
            command, code = content.get("command", ""), content.get("exitCode")
            ended = f"{status}, exit code {_plain(code)}" if isinstance(code, float) else status
            return [f"runs {command}" if status == "inProgress" else f"ran {command}: {ended}"]
        case "fileChange":
            paths = ", ".join(_paths_of(content.get("changes")))
            return [f"changes {paths}" if status == "inProgress" else f"changed {paths}: {status}"]
    return []


def _paths_of(changes: events.Json) -> list[str]:
    found = changes if isinstance(changes, Sequence) else ()
    return [str(change.get("path", "")) for change in found if isinstance(change, Mapping)]


def progress_words(text: str, done: int | None, total: int | None) -> str:
    """Describe how far a run has come, in one line: "3 of 10 files [3/10]"."""
    if done is None and total is None:
        return text
    return f"{text} [{'?' if done is None else done}/{'?' if total is None else total}]"


def _usage_words(usage: events.Usage) -> str:
    cached = f" ({usage.cached_input_tokens} cached)" if usage.cached_input_tokens else ""
    model = f"{usage.model}: " if usage.model else ""
    return f"used {model}{usage.input_tokens} tokens in{cached}, {usage.output_tokens} out"


def _json(value: events.Json, there: bool) -> str:
    """Return a value as it follows a word; nothing if there is none. Whole numbers are shown as such."""
    return " " + json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")) if there else ""


def _plain(value: events.Json) -> object:
    match value:
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case None | bool() | float() | str():
            return value
    if hasattr(value, "items"):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value]
