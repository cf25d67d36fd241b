"""Shows a run that is followed: each item, on the outputs."""

from __future__ import annotations

from apps.cli.following.rendering import LineEnds, Note, RunRenderer, Said, Shown, Wrote, state_words
from apps.cli.output import Output
from oa_base.visible import LAYOUT
from oa_client.core.models import RunAt
from oa_client.follow.items import Began, Broken, Item, Mended, Seen, StartedOver
from oa_client.proofs.event_lines import event_line


class TailView:
    """Shows a run as if its command ran here: its output on our outputs, everything else as notes on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._renderer = RunRenderer(output.note_width)

    def show(self, item: Item) -> None:
        """Show one item."""
        match item:
            case Seen():
                self._output.document(event_line(item.event.seq, item.payload))
                for shown in self._renderer.render(item.event.body):
                    self._put(shown)
            case Began(at=at):
                self._output.document({"seq": at.run.latest_seq, "snapshot": at.document})
                self._begin(at)
            case Broken(message=message):
                self._output.note(f"connection lost ({message}); it resumes by itself after the last event", "yellow")
            case Mended():
                self._output.note("connected again")
            case StartedOver(reason=reason):
                self._output.note(f"starting over: {reason}", "yellow")

    def _begin(self, at: RunAt) -> None:
        """Show the run's state, and the end of its messages and output."""
        self._renderer.begin(at)
        self._output.note(state_words(at))
        for event in sorted((*at.messages, *at.output, *at.open_requests), key=lambda event: event.seq):
            for shown in self._renderer.render(event.body):
                self._put(shown)

    def skip(self, item: Item) -> None:
        """Take note of an item without showing it again, because later items may depend on it."""
        if isinstance(item, Seen):
            self._renderer.render(item.event.body)

    def _put(self, shown: Shown) -> None:
        match shown:
            case Wrote(stream=stream, data=data):
                self._output.run_output(stream, data)
            case LineEnds(stream=stream):
                self._output.end_line(stream)
            case Said(text=text):
                self._output.say(text, layout=LAYOUT)
            case Note(text=text, style=style):
                self._output.note(text, style)
