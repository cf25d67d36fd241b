"""The lines of an events file: each is an event for people and programs, with the stored bytes that prove it.

docs/protocol/receipts.md, "Files", defines their form. `oa run tail --json` writes them, and
`oa receipt verify --events` reads them. A line that says something else than its bytes is refused, as in a replay
artifact.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from oa_base.refusal import Refusal
from oa_client.core import wire
from oa_client.core.models import JsonDocument
from oa_runlog.wire import decode_event
from oa_wire.strict.text import read_base64, read_json

_MEMBERS = {"seq", "event", "bytes"}


def event_line(seq: int, payload: bytes) -> JsonDocument:
    """Return an event for programs: its seq, the event as JSON, and the stored bytes, from which the chain is made."""
    return {"seq": seq, "event": wire.event_document(payload), "bytes": base64.b64encode(payload).decode()}


def read_event_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lazily the stored bytes of the event in each line, checked against the rest of the line.

    Raises Refusal `artifact_malformed`, with the number of the line. `verify_record` checks order, chain and receipt.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield _payload(line)
        except (ValueError, Refusal) as fault:
            what = fault.message if isinstance(fault, Refusal) else str(fault)
            message = f"line {number} is no event as `oa run tail --json` writes it ({what}); write the file anew"
            raise Refusal("artifact_malformed", message, metadata={"line": str(number)}) from None


def _payload(line: bytes) -> bytes:
    members = _members(line)
    try:
        payload = read_base64(members["bytes"])
    except (ValueError, TypeError):
        raise ValueError("bytes is not base64 in its one form") from None
    seq = decode_event(payload).seq
    if type(members["seq"]) is not int or members["seq"] != seq:
        raise ValueError(f"its seq is not that of its bytes, which is {seq}")
    if not wire.is_event_document(members["event"], payload):
        raise ValueError("its event says something else than its bytes")
    return payload


def _members(line: bytes) -> JsonDocument:
    try:
        members = read_json(line)
    except ValueError:
        raise ValueError("it is not JSON with one meaning") from None
    if not isinstance(members, dict) or set(members) != _MEMBERS:
        raise ValueError("its members are not seq, event and bytes")
    return members
