"""The end of a log file, for the message that says why a process did not start."""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024


def last_lines(path: Path, count: int = TAIL_LINES) -> str:
    """The last `count` lines of `path`, indented; says so when there is nothing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    lines = text.splitlines()[-count:]
    return "\n".join(f"  {line}" for line in lines) or "  (nothing was logged)"
