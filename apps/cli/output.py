"""All output of `oa`: it is written here and nowhere else in apps/cli (tests/house enforces that).

Text for people is colored on a terminal and plain when piped. Foreign text in it (titles, reasons, names, errors) is
made visible either way, see `oa_base.visible`. With `--json` stdout holds only JSON, one document per line, in UTF-8;
errors are one JSON document on stderr.

Nothing here raises because of where it writes: output that can't be written is lost. `gone` says so, for commands that
would follow something for hours, and `finish` turns it into the exit code.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

import click

from apps.cli.exits import Exit
from apps.cli.input.lines import next_line
from apps.cli.sink import Sink, Strays
from apps.cli.terminal import TerminalText, uncoloured
from apps.cli.wrapping import INDENT, wrapped
from oa_base.visible import LAYOUT, visible, visible_json
from oa_runlog.events import TextStream

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_OF_COMMANDS = {TextStream.STDOUT, TextStream.STDERR}
"""A command may write parts of one line to both."""
_ASIDE = {TextStream.STDERR, TextStream.REASONING}
"""Streams that are not the run's result; they go to our stderr."""


_TYPED_BYTES = 4096
_WITH_INPUT = "run the command on a terminal, or write the answer to its standard input"
_SIZES = {"COLUMNS", "LINES"}
"""Variables that state the size of the terminal. Any value that is no positive number means that it is unknown."""
_GAP = 2
"""Blank columns between two columns of a table."""
_ELASTIC_COLUMNS = 12
"""Minimum width of a column that was cut."""


class Output:
    """One command's output. `as_json` is set by `--json`, `raw` by `--raw`."""

    def __init__(self) -> None:
        self.as_json = False
        self.raw = False
        self.serving = False
        """Set by commands that serve until they are told to stop. They go on when their output is lost."""
        self._out, self._err = Sink(sys.stdout), Sink(sys.stderr)
        self._run_texts: dict[TextStream, TerminalText] = {}
        self._begun: dict[object, TextStream] = {}
        """The places where the run has begun a line that it has not ended: place -> its stream."""
        self._told = False

    @functools.cached_property
    def _people_out(self) -> Console:
        return _console(self._out)

    @functools.cached_property
    def _people_err(self) -> Console:
        return _console(self._err)

    @property
    def rich(self) -> bool:
        """Whether a person watches, so that colors and progress are wanted."""
        return self._out.isatty() and not self.as_json

    @property
    def note_width(self) -> int | None:
        """Maximum number of columns of a note; None if stderr is no terminal."""
        return self._people_err.width if self._err.isatty() else None

    @property
    def gone(self) -> bool:
        """Whether stdout can no longer be written."""
        return self._out.lost is not None

    @contextlib.contextmanager
    def strays(self) -> Iterator[None]:
        """Within the block, everything that prints by itself (help, warnings of libraries) prints through here, too."""
        with contextlib.redirect_stdout(Strays(self._out)), contextlib.redirect_stderr(Strays(self._err)):
            yield

    def finish(self, code: int) -> int:
        """Return the exit code of the program, given the command's own `code`. Nothing is written after this."""
        self._settle()
        self._tell_if_lost()
        lost = self._out.lost
        if lost is None or lost.errno == errno.EPIPE or self.serving:
            return code
        return Exit.OUTPUT_LOST if code == Exit.OK else code

    # ------------------------------------------------------------------------------------------------- for people

    def say(self, text: str, style: str = "", *, layout: str = "", whole: bool = False) -> None:
        """Write a line for people to stdout; nothing with `--json`. `layout`: which of "\\n" and "\\t" it keeps.

        `whole`: a value to copy, which is never broken into lines. With a layout, its own lines begin in column 0.
        """
        if not self.as_json:
            self._line(self._people_out, visible(text, layout), style, indent=None if layout else INDENT, whole=whole)
            self._tell_if_lost()

    def note(self, text: str, style: str = "dim") -> None:
        """Write a line about the command itself to stderr; nothing with `--json`."""
        if not self.as_json:
            self._line(self._people_err, visible(text), style, indent=INDENT)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, elastic: str = "") -> None:
        """Write a table for people; nothing with `--json`. Plain columns when piped.

        A terminal gets as many whole columns, from the left, as it has room for. Only the column called `elastic` may
        be cut.
        """
        shown = [[visible(cell) for cell in row] for row in rows]
        if self.rich:
            self._settle(self._out)
            self._people_out.print(_table([list(headers), *shown], elastic, self._people_out.width))
            self._tell_if_lost()
            return
        widths = [max(len(line[column]) for line in (headers, *shown)) for column in range(len(headers))]
        for line in (headers, *shown):
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def pairs(self, rows: Sequence[Sequence[str]]) -> None:
        """Write names and values for people; nothing with `--json`."""
        width = max(len(name) for name, _ in rows)
        if self.as_json:
            return
        for name, value in rows:
            self._line(self._people_out, visible(f"{name:<{width}}  {value}"), "", indent=width + _GAP)
        self._tell_if_lost()

    def ask(self, what: str) -> str:
        """Ask for a line on stderr, and return what the person types. Without input, it is a usage error."""
        if sys.stdin is None:
            raise click.UsageError(f"{what} can't be asked for: standard input is closed; {_WITH_INPUT}.")
        while True:
            self._settle(self._err)
            self._err.write(f"{what}: ")
            line = next_line(sys.stdin)
            if not line:
                self._err.write("\n")  # ends the line of the question
                raise click.UsageError(f"{what} was not given: there is no more input; {_WITH_INPUT}.")
            if answer := line.decode(sys.stdin.encoding, "replace").strip():
                return answer

    # --------------------------------------------------------------------------------------------------- of a run

    def run_output(self, stream: TextStream, data: bytes) -> None:
        """Write a run's output; nothing with `--json`. When piped, or with `--raw`: exactly these bytes."""
        if self.as_json:
            return
        sink = self._sink_of(stream)
        begun = self._begun.get(sink.place)
        if begun is not None and begun is not stream and not {begun, stream} <= _OF_COMMANDS:
            self._settle(sink)
        if sink.isatty() and not self.raw:
            text = self._run_texts.setdefault(stream, TerminalText()).feed(data)
            sink.write(text)
            self._note_line(sink, stream, uncoloured(text).encode())
        else:
            sink.write_bytes(data)
            self._note_line(sink, stream, data)
        self._tell_if_lost()

    def end_line(self, stream: TextStream) -> None:
        """End the line that the run has begun on this stream, if there is one; nothing with `--json`."""
        if self._begun.get(self._sink_of(stream).place) is stream:
            self._settle(self._sink_of(stream))

    def _note_line(self, sink: Sink, stream: TextStream, data: bytes) -> None:
        if data.endswith(b"\n"):
            self._begun.pop(sink.place, None)
        elif data:
            self._begun[sink.place] = stream

    def _settle(self, sink: Sink | None = None) -> None:
        """Show the run's output to its end. On `sink`, end the line, because something else begins there."""
        for stream, text in self._run_texts.items():
            if settled := text.settle():
                self._sink_of(stream).write(settled)
                self._note_line(self._sink_of(stream), stream, uncoloured(settled).encode())
        if sink is not None and self._begun.pop(sink.place, None) is not None:
            sink.write("\n")

    def _sink_of(self, stream: TextStream) -> Sink:
        return self._err if stream in _ASIDE else self._out

    # ----------------------------------------------------------------------------------------------- for programs

    def document(self, value: Any) -> None:
        """Write a JSON document to stdout; nothing without `--json`."""
        if self.as_json:
            _write_json(self._out, value)
            self._tell_if_lost()

    # ----------------------------------------------------------------------------------------------------- errors

    def error(self, reason: str, message: str, document: Mapping[str, Any]) -> None:
        """Write an error, whose message may be empty, to stderr; with `--json`: `document`."""
        if self.as_json:
            _write_json(self._err, {"error": document})
        else:
            self._error(reason, message)

    def usage(self, error: click.ClickException) -> None:
        """Report on stderr that a command was called wrongly."""
        message = error.format_message()
        if self.as_json:
            _write_json(self._err, {"error": error_document("usage", message, action="fix_request")})
        elif isinstance(error, click.exceptions.NoArgsIsHelpError):  # then the message is the help
            self._line(self._people_err, visible(message, LAYOUT), "")
        else:
            context = error.ctx if isinstance(error, click.UsageError) else None
            for line in (context.get_usage(), f"Try '{context.command_path} --help' for help.", "") if context else ():
                self.note(line, "")
            self._error("Error", message)

    def trace(self, text: str) -> None:
        """Write the traceback of a defect to stderr, for people who asked for it."""
        self._line(self._people_err, visible(text, LAYOUT), "")

    def _tell_if_lost(self) -> None:
        """Say once on stderr that stdout can't be written. A reader that has enough is no error."""
        lost = self._out.lost
        if self._told or lost is None or lost.errno == errno.EPIPE:
            return
        self._told = True
        why = "is closed" if lost.errno == errno.EBADF else f"can't be written: {lost.strerror}"
        message = f"standard output {why}; what was not shown is lost, but the command did its work"
        if self.as_json:
            _write_json(self._err, {"error": error_document("output_lost", message)})
        else:
            self._error("output_lost", message)

    def _error(self, reason: str, message: str) -> None:
        """Write an error. Lines after the first are indented, so that none of them looks like a line of ours."""
        from rich.text import Text

        self._settle(self._err)
        reason = f"{visible(reason)}: " if message else visible(reason)
        lines = f"{reason}{visible(message, LAYOUT)}".replace("\n", "\n" + " " * INDENT).split("\n")
        if self._err.isatty():
            lines = [wrapped(line, self._people_err.width) for line in lines]
        text = Text("\n".join(lines))
        text.stylize("bold red", 0, len(reason))
        self._people_err.print(text, soft_wrap=True)

    def _line(self, console: Console, text: str, style: str, *, indent: int | None = None, whole: bool = False) -> None:
        """Write a line. On a terminal, it is broken and goes on with this indent, unless it has to stay `whole`.

        Without an indent, the text has lines of its own, which go on in column 0.
        """
        from rich.text import Text

        sink = self._out if console is self._people_out else self._err
        self._settle(sink)
        if indent is not None and sink.isatty() and not whole:
            text = wrapped(text, console.width, indent)
        console.print(Text(text), style=style or None, soft_wrap=None if indent is None else True)


def error_document(
    reason: str, message: str, *, metadata: Mapping[str, str] | None = None, action: str = "give_up"
) -> dict[str, Any]:
    """Return an error that is no Refusal in the form of one: every error has the same members (docs/cli.md)."""
    return {
        "reason": reason,
        "message": message,
        "field": "",
        "metadata": dict(metadata or {}),
        "retryAfterMs": 0,
        "action": action,
    }


def typed_pieces() -> Iterator[bytes]:
    """Yield what a person types, as it arrives, to the end of the input. It blocks: call it in a thread of its own.

    It reads the file descriptor itself, so that it holds no lock that the interpreter needs when it exits.
    """
    if sys.stdin is None:
        return
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError):  # standard input of a test
        yield sys.stdin.buffer.read()
        return
    with contextlib.suppress(OSError):
        while piece := os.read(fd, _TYPED_BYTES):
            yield piece


def _console(sink: Sink) -> Console:
    from rich.console import Console

    return Console(
        file=cast("IO[str]", sink),
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=not sink.isatty(),
        _environ={name: value for name, value in os.environ.items() if name not in _SIZES or _is_size(value)},
    )


def _is_size(text: str) -> bool:
    """Whether the text is a size of a terminal. rich takes 0 literally, and would show nothing at all."""
    return re.fullmatch(r"0*[1-9][0-9]{0,4}", text, re.ASCII) is not None


def _write_json(sink: Sink, value: Any) -> None:
    line = visible_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) + "\n"
    sink.write_bytes(line.encode())


def _table(lines: list[list[str]], elastic: str, width: int) -> Table:
    """The first line holds the headers."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    count = columns_that_fit(lines, elastic, width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    needed = [max(cell_len(line[column]) for line in lines) for column in range(count)]
    too_much = max(0, sum(needed) + _GAP * (count - 1) - width)
    for name, columns in zip(lines[0], needed, strict=False):
        if name == elastic:
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=columns - too_much)
        else:
            table.add_column(name, overflow="fold")
    for line in lines[1:]:
        table.add_row(*map(Text, line[:count]))
    return table


def columns_that_fit(lines: Sequence[Sequence[str]], elastic: str, width: int) -> int:
    """Return how many columns, from the left, fit into `width`. The first is always shown. `lines[0]` has the names."""
    from rich.cells import cell_len

    room = width
    for column, name in enumerate(lines[0]):
        needed = max(cell_len(line[column]) for line in lines)
        room -= (min(needed, _ELASTIC_COLUMNS) if name == elastic else needed) + (_GAP if column else 0)
        if room < 0 and column:
            return column
    return len(lines[0])


def clipped(text: str, width: int | None) -> str:
    """Return `text` as one visible line of at most `width` columns. A cut line says how many characters are missing."""
    from rich.cells import cell_len, set_cell_size

    line = visible(text)
    if width is None or cell_len(line) <= width:
        return line
    room = max(0, width - len(f"… {len(line)} more characters"))
    kept = set_cell_size(line, room).rstrip()
    return f"{kept}… {len(line) - len(kept)} more characters"


def bytes_words(count: int) -> str:
    """A number of bytes for people: "3.2 KiB"."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def ms_words(ms: int) -> str:
    """A duration for people: "340 ms", "2.5 s", "3 min 20 s"."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min {ms % 60_000 // 1000} s"
