"""The app-server's output, cut into messages: one JSON object per line. Pure."""

from __future__ import annotations

import json
from typing import Any


class BadLine(Exception):
    """The input is not a message; the text says why, and contains nothing of the input."""


class Lines:
    """Takes bytes as they come, and returns messages. Holds at most one line of `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages that end in `data`. Raises BadLine."""
        *ended, rest = data.split(b"\n")
        found = []
        for part in ended:
            self._add(part)
            line, self._begun = bytes(self._begun), bytearray()
            if line.strip():
                found.append(message_of(line))
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._max_bytes:
            raise BadLine(f"a message is longer than {self._max_bytes} bytes")
        self._begun += part


def message_of(line: bytes) -> dict[str, Any]:
    """Parse one message. Raises BadLine."""
    try:
        message = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"a line is no JSON ({type(error).__name__})") from None
    if not isinstance(message, dict):
        raise BadLine("a line is JSON, but no object")
    if not isinstance(message.get("method", ""), str) or not ({"method", "id"} & message.keys()):
        raise BadLine("a line is neither a request nor a notification nor an answer")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(constant)
