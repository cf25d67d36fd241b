"""How an input of a run becomes bytes on the standard input of its command, and how bytes become inputs.

A JSON string is a line: its text in UTF-8, and a line feed unless it ends with one. An object has the content to write
as is, `text` or bytes in `base64`, and may have `end`: true means that nothing follows. An object with only `resize`
gives the new size of the command's terminal.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from oa_base.refusal import Refusal
from oa_runlog.events import ExecSpec
from oa_wire.strict.text import read_base64, read_json

MAX_PIECE_BYTES = 128 * 1024
"""Maximum number of bytes in one input, in base64 too, unless the installation has lowered OA_RUN_MAX_INPUT_BYTES."""
_LINE_END = b"\n"
_MEMBERS = {"text", "base64", "end"}
_RESIZE = "resize"
MAX_TERMINAL_SIDE = 1000
"""Maximum number of columns or rows of a terminal in the contract."""
_FORMS = 'send a string, which is a line, or an object like {"text": "…"}, {"base64": "…"} or {"end": true}'
_SIZES = 'send {"resize": {"columns": 80, "rows": 24}}, each from 1 to 1000'


@dataclass(frozen=True, slots=True)
class StdinPiece:
    """Bytes for a command's standard input, with `ends` if nothing follows them; or only a `size`."""

    data: bytes
    ends: bool = False
    size: tuple[int, int] | None = None
    """The new columns and rows of the command's terminal."""


def read_piece(input_json: str) -> StdinPiece:
    """Return what an input says. Raises Refusal `invalid_value` for one that fits no standard input or terminal."""
    try:
        value = read_json(input_json)
        if isinstance(value, str):
            line = value.encode()
            return StdinPiece(line if line.endswith(_LINE_END) else line + _LINE_END)
        return _object(value)
    except ValueError:  # no JSON, half of a surrogate pair, another base64
        raise _misfit("it is no JSON text of bytes") from None


def check_is_heard(command: ExecSpec, input_json: str) -> None:
    """Raise Refusal `invalid_value` for an input that this command can't take."""
    if not command.stdin and command.terminal is None:
        text = "this command takes no inputs; start it with spec.exec.stdin (oa run start --stdin)"
        raise Refusal("invalid_value", text, field="run_id")
    piece = read_piece(input_json)
    if piece.size is not None and command.terminal is None:
        text = "this command has no terminal to resize; start it with spec.exec.terminal (oa run start --tty)"
        raise Refusal("invalid_value", text, field="run_id")
    if piece.size is None and not command.stdin:
        text = "nobody types at this command's terminal; start it with spec.exec.stdin (oa run start --stdin)"
        raise Refusal("invalid_value", text, field="run_id")


def piece_json(piece: StdinPiece) -> str:
    """Return the input for a piece: as text if it is readable and no longer than base64, else in base64."""
    if piece.size is not None:
        columns, rows = piece.size
        return _json({_RESIZE: {"columns": columns, "rows": rows}})
    members: dict[str, object] = {"end": True} if piece.ends else {}
    if not piece.data and piece.ends:
        return _json(members)
    in_base64 = _json({"base64": base64.b64encode(piece.data).decode(), **members})
    try:
        as_text = _json({"text": piece.data.decode(), **members})
    except UnicodeDecodeError:
        return in_base64
    return as_text if b"\0" not in piece.data and len(as_text.encode()) <= len(in_base64) else in_base64


def _object(value: Any) -> StdinPiece:
    if isinstance(value, dict) and set(value) == {_RESIZE}:
        return StdinPiece(b"", size=_size(value[_RESIZE]))
    if not isinstance(value, dict) or not value or not set(value) <= _MEMBERS or {"text", "base64"} <= set(value):
        raise _misfit("the command has no use for it")
    text, data, ends = value.get("text", ""), value.get("base64", ""), value.get("end", False)
    if not isinstance(text, str) or not isinstance(data, str) or not isinstance(ends, bool):
        raise _misfit("a member is of another type")
    return StdinPiece(text.encode() or read_base64(data), ends)


def _size(value: Any) -> tuple[int, int]:
    match value:
        case {"columns": int(columns), "rows": int(rows), **more} if not more:
            if all(type(side) is int and 1 <= side <= MAX_TERMINAL_SIDE for side in (columns, rows)):
                return columns, rows
    raise Refusal("invalid_value", f"the input is no size of a terminal; {_SIZES}", field="input_json")


def _misfit(what: str) -> Refusal:
    text = f"the input goes to a command's standard input, and {what}; {_FORMS}"
    return Refusal("invalid_value", text, field="input_json")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
