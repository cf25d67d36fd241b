"""Replay artifacts: a finished run as a file that anybody can check, and that is the same for everybody.

The format is docs/protocol/replay.md: JSON Lines in RFC 8785 form; a header, a line for each event, a trailer with the
receipt and the hashes. The artifact proves the event bytes, which it holds in base64. Everything else in a line follows
from them. So `artifact_lines` is a function of the events and the receipt, and `ReplayReader` accepts no other form: a
line can't tell people anything that its event does not. `verify.verify_artifact` checks what an artifact proves.

Both work line by line: a run of any length needs the memory of one event.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.events import RunEvent
from oa_runlog.proof.chain import chain_next, chain_start
from oa_runlog.proof.receipt import SignedReceipt, rfc3339
from oa_runlog.proof.sequence import in_sequence
from oa_wire.strict.text import read_base64, read_json

FORMAT = "openagents.replay.v1"
"""Name of the format, in the header of each artifact."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""Maximum length of a line. An event of 4 MiB, the maximum that an installation can allow, takes 5.6 MiB in base64."""

_HEADER = {"kind", "format", "run_id", "chain"}
_EVENT = {"kind", "seq", "type", "time", "chain", "event"}
_TRAILER = {"kind", "count", "chain_head", "sha256", "receipt"}
_RECEIPT = {"canonical_json", "signature", "key_id"}


@dataclass(frozen=True, slots=True)
class ReplayEvent:
    """An event of an artifact: its bytes as stored, its value, and the chain up to it."""

    data: bytes
    event: RunEvent
    chain: bytes


# ------------------------------------------------------------------------------------------------- writing


def artifact_lines(receipt: SignedReceipt, events: Iterable[bytes]) -> Iterator[bytes]:
    """The artifact's lines, each with its line end; `events` are the bytes of all of the run's events, as stored.

    Raises Refusal for bytes that are not an event. It does not check the run: `verify_artifact` does.
    """
    digest = hashlib.sha256()
    chain, count = chain_start(receipt.run_id), 0
    for line in _body(receipt.run_id, events):
        digest.update(line.text)
        chain, count = line.chain, line.count
        yield line.text
    yield _line(
        {
            "kind": "trailer",
            "count": count,
            "chain_head": chain.hex(),
            "sha256": digest.hexdigest(),
            "receipt": {
                "canonical_json": receipt.canonical_json.decode(),
                "signature": _base64(receipt.signature),
                "key_id": receipt.key_id,
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _BodyLine:
    text: bytes
    chain: bytes
    count: int


def _body(run_id: str, events: Iterable[bytes]) -> Iterator[_BodyLine]:
    chain = chain_start(run_id)
    yield _BodyLine(_header(run_id), chain, 0)
    for count, data in enumerate(events, start=1):
        chain = chain_next(chain, data)
        yield _BodyLine(_event_line(data, wire.decode_event(data), chain), chain, count)


def _header(run_id: str) -> bytes:
    return _line({"kind": "header", "format": FORMAT, "run_id": run_id, "chain": chain_start(run_id).hex()})


def _event_line(data: bytes, event: RunEvent, chain: bytes) -> bytes:
    return _line(
        {
            "kind": "event",
            "seq": event.seq,
            "type": str(event.type),
            "time": rfc3339(event.recorded_ns),
            "chain": chain.hex(),
            "event": _base64(data),
        }
    )


def _line(members: dict[str, Canonical]) -> bytes:
    return canonical_json(members) + b"\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ------------------------------------------------------------------------------------------------- reading


def read_artifact(lines: Iterable[bytes]) -> Iterator[ReplayEvent]:
    """The events of an artifact, for display. Each is checked for order, chain and form; the receipt is not checked.

    Raises Refusal: `artifact_malformed`, `event_missing`, `event_doubled`, `event_misplaced`, `tail_cut`,
    `sequence_broken`, `chain_mismatch`, `receipt_foreign`.
    """
    return ReplayReader(lines).events()


def read_event_line(line: bytes) -> tuple[int, str, bytes]:
    """Seq, type and stored bytes of the event in a line. Checks nothing: the whole artifact must have been verified.

    Raises ValueError or KeyError if the line is not an event's.
    """
    members = read_json(line)
    return members["seq"], str(members["type"]), read_base64(members["event"])


class ReplayReader:
    """Reads an artifact from its first line to its last: first all `events`, then the `receipt`.

    It checks form, order and chain, but not the receipt. Raises Refusal as `read_artifact` does. `run_id` is the run
    that the header names; `chain` is the chain up to the last event that was read.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._digest = hashlib.sha256()
        self._trailer: dict[str, Any] | None = None
        first = next(self._lines, b"")
        header = _parse(first) if first else {}
        _check_members(header, "header", _HEADER)
        self.run_id = _text(header, "run_id")
        if first != _header(self.run_id):
            raise _malformed(f"its first line is not the header of {FORMAT}")
        self._digest.update(first)
        self.chain = chain_start(self.run_id)
        self._count = 0

    def events(self) -> Iterator[ReplayEvent]:
        """The events. After the last of them, the trailer has been read."""
        # The order is checked first because it shows best what is wrong when whole lines were tampered with.
        for members, line in in_sequence(self._event_lines(), lambda one: _whole(one[0], "seq")):
            yield self._event(members, line)

    def receipt(self) -> SignedReceipt:
        """The receipt in the trailer; the trailer must match the lines above it."""
        trailer = self._trailer
        if trailer is None:
            raise Refusal("tail_cut", f"the artifact ends after event {self._count}, without its trailer")
        self.check_count(_whole(trailer, "count"))
        if trailer["chain_head"] != self.chain.hex():
            raise Refusal("chain_mismatch", "the trailer states another chain head than the events give")
        if trailer["sha256"] != self._digest.hexdigest():
            raise _malformed("the trailer states another hash than that of what stands above it")
        return self._receipt_of(trailer)

    def check_count(self, count: int) -> None:
        """Raises Refusal(tail_cut) or Refusal(sequence_broken) unless there were `count` events."""
        if self._count < count:
            raise Refusal("tail_cut", f"the artifact has {self._count} events of {count}")
        if self._count > count:
            raise Refusal("sequence_broken", f"the artifact has {self._count} events; {count} are stated")

    def _receipt_of(self, trailer: dict[str, Any]) -> SignedReceipt:
        members = trailer["receipt"]
        if not isinstance(members, dict) or set(members) != _RECEIPT:
            raise _malformed("its trailer holds no receipt")
        signature = _bytes(members, "signature")
        text = _text(members, "canonical_json")
        return SignedReceipt(self.run_id, text.encode(), signature, _text(members, "key_id"))

    def _event(self, members: dict[str, Any], line: bytes) -> ReplayEvent:
        data = _bytes(members, "event")
        metadata = {"seq": str(members["seq"])}
        self.chain = chain_next(self.chain, data)
        if members["chain"] != self.chain.hex():
            text = f"event {members['seq']} does not give the chain that its line states: a byte was changed"
            raise Refusal("chain_mismatch", text, metadata=metadata)
        try:
            event = wire.decode_event(data)
        except Refusal as refusal:
            raise Refusal("chain_mismatch", f"what should be an event is none: {refusal}", metadata=metadata) from None
        if event.run_id != self.run_id:
            raise Refusal("receipt_foreign", f"event {event.seq} is of another run", metadata=metadata)
        if line != _event_line(data, event, self.chain):
            raise _malformed(f"the line of event {members['seq']} says something else than the event")
        self._digest.update(line)
        self._count += 1
        return ReplayEvent(data, event, self.chain)

    def _event_lines(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Members and text of each event's line, up to the trailer, which must be the last line."""
        while (line := next(self._lines, None)) is not None:
            members = _parse(line)
            if members.get("kind") != "trailer":
                _check_members(members, "event", _EVENT)
                yield members, line
                continue
            _check_members(members, "trailer", _TRAILER)
            self._trailer = members
            if next(self._lines, None) is not None:
                raise _malformed("it goes on after its trailer")


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _malformed(f"it has a line of more than {MAX_LINE_BYTES} bytes")
    if not line.endswith(b"\n"):
        raise Refusal("tail_cut", "the artifact ends within a line")
    try:
        members = read_json(line)
        if isinstance(members, dict) and canonical_json(members) + b"\n" == line:
            return members
    except ValueError:
        pass
    raise _malformed("it has a line that is no JSON object in canonical form")


def _check_members(members: dict[str, Any], kind: str, names: set[str]) -> None:
    if members.get("kind") != kind or set(members) != names:
        raise _malformed(f"a line is not what a line of the kind {kind} must be")


def _text(members: dict[str, Any], name: str) -> str:
    if not isinstance(members[name], str):
        raise _malformed(f"{name} is no text")
    return str(members[name])


def _whole(members: dict[str, Any], name: str) -> int:
    if type(members[name]) is not int:
        raise _malformed(f"{name} is no whole number")
    return int(members[name])


def _bytes(members: dict[str, Any], name: str) -> bytes:
    text = _text(members, name)
    try:
        return read_base64(text)
    except ValueError:
        raise _malformed(f"{name} is not base64 in its one form") from None


def _malformed(text: str) -> Refusal:
    return Refusal("artifact_malformed", f"this is no replay artifact: {text}")
