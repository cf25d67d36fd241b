"""Following a run: from what is stored here on, live, to its end; and showing it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from apps.cli.output import Output, bytes_words, ms_words
from oa_client.client import Client
from oa_client.event_lines import event_line
from oa_client.log import AppliedLog, LogFold
from oa_client.store import WatermarkStore
from oa_client.subscription import MAX_BATCH, Applied, CaughtUp, Connection, Refused, Restarted, Subscription
from oa_errors import Refusal
from oa_errors.visible import LAYOUT
from oa_khala.topics import run_events
from oa_runlog import events


@dataclass(frozen=True)
class Seen:
    """An event of the run, stored here. `live`: it came now; otherwise it was here already."""

    event: events.RunEvent
    payload: bytes
    live: bool


@dataclass(frozen=True)
class Broken:
    """The connection broke; it is being made again."""

    message: str


@dataclass(frozen=True)
class StartedOver:
    """What was stored could not be continued and is sent again from its start."""

    reason: str


Item = Seen | Broken | StartedOver


class RunTail:
    """Follows one run. `log` is what is stored here, exactly."""

    def __init__(self, client: Client, store: WatermarkStore, run_id: str, *, max_batch: int = MAX_BATCH) -> None:
        """Raises Refusal `invalid_topic` when `run_id` is no id of a run."""
        self._client = client
        self._store = store
        self._run_id = run_id
        self._topic = run_events(run_id)
        self._max_batch = max_batch
        self._fold = LogFold(run_id)
        self.subscription: Subscription | None = None

    @property
    def log(self) -> AppliedLog:
        """Counts and chain head of what has been applied."""
        return self._fold.result

    def ended(self) -> bool:
        """Whether the run's finish has been applied."""
        return self.log.finished

    async def items(self) -> AsyncGenerator[Item, None]:
        """What is stored, then what comes, up to the run's finish. Raises Refusal when the topic can't be had."""
        for element in self._store.elements(self._topic):
            yield self._seen(element.seq, element.payload, live=False)
        if self.ended():
            return
        async with self._client.subscription(self._store, max_batch=self._max_batch) as subscription:
            self.subscription = subscription
            await subscription.follow(self._topic)
            async with aclosing(subscription.updates()) as updates:
                async for update in updates:
                    item = self._item(update)
                    if item is not None:
                        yield item
                    if self.ended():
                        return

    def _item(self, update: object) -> Item | None:
        match update:
            case Applied(seq=seq, payload=payload):
                return self._seen(seq, payload, live=True)
            case Connection(open=False, message=message):
                return Broken(message)
            case Restarted(reason=reason):
                self._fold = LogFold(self._run_id)
                return StartedOver(reason)
            case CaughtUp(seq=seq) if seq > self.log.last_seq:
                message = f"The run's events have moved to the archive. Read them with: oa replay show {self._run_id}"
                raise Refusal("retention_floor_breach", message)
            case Refused(refusal=refusal):
                raise refusal
            case _:
                return None

    def _seen(self, seq: int, payload: bytes, *, live: bool) -> Seen:
        return Seen(self._fold.add(seq, payload), payload, live)


class TailView:
    """Shows a run as if its command ran here: its output on our outputs, everything else as notes on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, item: Item) -> None:
        """Show one item."""
        if isinstance(item, Seen):
            self._output.document(event_line(item.event.seq, item.payload))
            self._show_event(item.event.body)
        elif isinstance(item, Broken):
            self._output.note(f"connection lost ({item.message}); resuming from the last event applied", "yellow")
        else:
            self._output.note(f"starting over: {item.reason}", "yellow")

    def _show_event(self, body: events.EventBody) -> None:
        note = self._output.note
        match body:
            case events.TextDelta(stream=stream, data=data):
                self._output.run_output(stream, data)
            case events.RunStarted(worker_id=worker_id, attempt=attempt):
                note(f"started on {worker_id}" + (f", attempt {attempt}" if attempt > 1 else ""))
            case events.RunCancelRequested(reason=reason):
                note("cancel was requested" + (f": {reason}" if reason else ""), "yellow")
            case events.ExecutorLost(worker_id=worker_id, requeued=requeued):
                note(f"{worker_id} was lost" + ("; waiting for another worker" if requeued else ""), "yellow")
            case events.Message(text=text):
                self._output.say(text, layout=LAYOUT)
            case events.ToolCall(name=name):
                note(f"calls {name}")
            case events.RunFinished():
                note(finish_words(body), "green" if body.outcome is events.Outcome.SUCCEEDED else "red")
            case _:
                pass


def finish_words(finish: events.RunFinished) -> str:
    """How a run ended, in one line."""
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
