"""What a command says: words for people (rich on a terminal, plain when piped), or JSON for programs.

With `--json` stdout holds JSON and nothing else, one document a line; errors are one JSON document on stderr.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from oa_errors import ClientAction, Refusal

_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_NEXT = {
    ClientAction.FIX_REQUEST: "Mend the command and run it again.",
    ClientAction.RETRY: "Try again in a moment.",
    ClientAction.REAUTHENTICATE: "Sign in: oa login",
    ClientAction.REREAD: "Look at the present state, for example with oa run show, and decide again.",
    ClientAction.RESYNC: "Run the command again; it starts from the beginning of the topic.",
    ClientAction.RECONNECT: "Run the command again; it goes on where it stopped.",
    ClientAction.UPGRADE: "Install a newer version of oa.",
    ClientAction.STOP_WORK: "Nothing is left to do here: the run has ended, or another worker has it.",
}


class Output:
    """One command's output. `as_json` is set by `--json`."""

    def __init__(self) -> None:
        self.as_json = False
        self.out = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())

    @property
    def rich(self) -> bool:
        """Whether a person watches: colours and progress are wanted."""
        return self.out.is_terminal and not self.as_json

    def say(self, text: str, style: str = "") -> None:
        """A line for people on stdout; nothing with `--json`. `text` is taken as it is, brackets too."""
        if not self.as_json:
            self.out.print(text, style=style or None, markup=False)

    def note(self, text: str, style: str = "dim") -> None:
        """A line about the command itself on stderr; nothing with `--json`."""
        if not self.as_json:
            self.err.print(text, style=style, markup=False)

    def document(self, value: Any) -> None:
        """A JSON document on stdout; nothing without `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people; nothing with `--json`. Plain columns when piped."""
        if self.as_json:
            return
        if self.rich:
            table = Table(*headers, box=None, header_style="bold", pad_edge=False)
            for row in rows:
                table.add_row(*(cell.replace("[", r"\[") for cell in row))
            self.out.print(table)
            return
        widths = [max(len(line[column]) for line in (headers, *rows)) for column in range(len(headers))]
        for line in (headers, *rows):
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def pairs(self, rows: Sequence[Sequence[str]]) -> None:
        """Names and values for people; nothing with `--json`."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.say(f"{name:<{width}}  {value}")

    def refusal(self, refusal: Refusal) -> None:
        """An error on stderr: the reason, what happened, and what to do next."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": refusal_document(refusal)}, ensure_ascii=False) + "\n")
            return
        where = f" ({refusal.field})" if refusal.field else ""
        self.err.print(f"{refusal.reason}{where}: ", style="bold red", end="", markup=False)
        self.err.print(refusal.message, markup=False)
        if hint := next_step(refusal):
            self.err.print(hint, style="dim", markup=False)

    def usage(self, message: str) -> None:
        """A usage error with `--json`."""
        sys.stderr.write(json.dumps({"error": {"reason": "usage", "message": message}}) + "\n")


def next_step(refusal: Refusal) -> str:
    """What to do next, in the words of this program; empty when the message says it itself or nothing helps."""
    if "oa " in refusal.message or refusal.field.startswith("OA_"):
        return ""
    if refusal.info.action is ClientAction.RETRY and refusal.retry_after_ms:
        return f"Try again in {-(-refusal.retry_after_ms // 1000)} s."
    return _NEXT.get(refusal.info.action, "")


def refusal_document(refusal: Refusal) -> dict[str, Any]:
    """A refusal for programs."""
    return {
        "reason": refusal.reason,
        "message": refusal.message,
        "field": refusal.field,
        "metadata": refusal.metadata,
        "retry_after_ms": refusal.retry_after_ms,
        "action": refusal.info.action.value,
    }


def shown(text: str) -> str:
    """Text of a command as a terminal may have it: colours stay, what could drive the terminal is made visible."""
    return _CONTROL.sub(lambda found: found[0] if found[0].startswith("\x1b[") else "\N{REPLACEMENT CHARACTER}", text)


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
