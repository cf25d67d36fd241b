"""Showing a run that is followed: what a person sees of each item."""

from __future__ import annotations

from apps.cli.output import Output, bytes_words, ms_words
from oa_base.visible import LAYOUT
from oa_client.follow.items import Broken, Item, Seen
from oa_client.proofs.event_lines import event_line
from oa_runlog import events


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
