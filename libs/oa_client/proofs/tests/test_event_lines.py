"""Events files: a line that says something else than its bytes is refused, whatever it says it with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from oa_base.refusal import Refusal
from oa_client.core import wire
from oa_client.proofs.event_lines import event_line, read_event_lines
from oa_runlog import events as ev
from oa_runlog.proof.verify import verify_record
from oa_runlog.tests import values
from oa_runlog.tests.records import KEYS, Record, record, records, text
from oa_runlog.wire import encode_body, encode_event
from openagents.runtime.v1 import event_pb2

CUSTOM = ev.Custom("a.b", {"yes": True, "one": 1.0, "zero": -0.0, "big": 1e300, "line": "\u2028\x85\x0c\n"})
RUN = record([text(b"one\n"), CUSTOM, ev.ToolResult("c", failed=True)])


def lines_of(one: Record) -> list[bytes]:
    """The file as `oa run tail --json` writes it."""
    written = [event_line(seq, payload) for seq, payload in enumerate(one.events, start=1)]
    return [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in written]


LINES = lines_of(RUN)


def changed(number: int, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A line, changed in its JSON."""
    members = json.loads(LINES[number])
    change(members)
    return json.dumps(members).encode()


def refusal_of(line: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        list(read_event_lines([LINES[0], line]))
    return caught.value


@given(records)
def test_what_is_written_is_read_and_proved(one: Record) -> None:
    assert list(read_event_lines(lines_of(one))) == one.events
    assert verify_record(one.receipt, KEYS, read_event_lines(lines_of(one))).count == len(one.events)


def test_no_line_of_the_file_is_cut_by_the_text_in_it() -> None:
    """U+2028, NEL and form feed end a line for some readers, and none here."""
    assert list(read_event_lines(b"".join(LINES).splitlines(keepends=True))) == RUN.events


def _twice(name: str) -> bytes:
    return LINES[2].replace(b"{", f'{{"{name}":1,'.encode(), 1)


def _url_safe() -> str:
    return base64.urlsafe_b64encode(RUN.events[2]).decode() + "-_"


CONTRADICTIONS: dict[str, bytes] = {
    "another seq": changed(2, lambda m: m.update(seq=4)),
    "seq as text": changed(2, lambda m: m.update(seq="3")),
    "seq as a float": changed(2, lambda m: m.update(seq=3.0)),
    "seq as a truth value": changed(0, lambda m: m.update(seq=True)),
    "another seq in the event": changed(2, lambda m: m["event"].update(seq="4")),
    "another text": changed(2, lambda m: m["event"]["body"]["textDelta"].update(data="dHdvCg==")),
    "another run": changed(2, lambda m: m["event"].update(runId=values.OTHER_RUN_ID)),
    "another time": changed(2, lambda m: m["event"].update(recordedTime="2026-11-22T16:57:33Z")),
    "another lease": changed(2, lambda m: m["event"].update(leaseEpoch="2")),
    "another kind": changed(2, lambda m: m["event"].update(body={"message": {"role": "MESSAGE_ROLE_USER"}})),
    "a field more": changed(2, lambda m: m["event"].update(note="proved")),
    "a field less": changed(4, lambda m: m["event"]["body"]["toolResult"].pop("failed")),
    "a field under both its names": LINES[2].replace(b'{"runId"', b'{"run_id": "x", "runId"', 1),
    "1 for true": changed(3, lambda m: m["event"]["body"]["custom"]["data"].update(yes=1)),
    "true for 1": changed(3, lambda m: m["event"]["body"]["custom"]["data"].update(one=True)),
    "no event": changed(2, lambda m: m.update(event=None)),
    "an event that is none": changed(2, lambda m: m.update(event="text")),
    "a member more": changed(2, lambda m: m.update(note="proved")),
    "a member less": changed(2, lambda m: m.pop("event")),
    "seq twice": _twice("seq"),
    "event twice": _twice("event"),
    "bytes twice": _twice("bytes"),
    "a key twice within the event": LINES[2].replace(b'{"runId"', b'{"runId": "x", "runId"', 1),
    "data after the padding": changed(2, lambda m: m.update(bytes=m["bytes"].rstrip("=") + "==QUJD")),
    "bytes that are no base64": changed(2, lambda m: m.update(bytes=m["bytes"] + "!")),
    "bytes in the other alphabet": changed(2, lambda m: m.update(bytes=_url_safe())),
    "bytes that are no text": changed(2, lambda m: m.update(bytes=7)),
    "bytes that are no event": changed(2, lambda m: m.update(bytes="/w==")),
    "no object": b"[]",
    "an empty line": b"\n",
    "a line cut": LINES[2][:40],
    "not UTF-8": LINES[2].replace(b"{", b'{"\xff":1,', 1),
    "UTF-16": LINES[2].decode().encode("utf-16"),
    "deep nesting": b'{"event":' + b"[" * 100_000,
    "deep nesting that ends": b'{"seq":3,"bytes":"","event":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
}


@pytest.mark.parametrize("line", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_line_that_contradicts_its_bytes_or_itself_is_refused(line: bytes) -> None:
    refusal = refusal_of(line)
    assert (refusal.reason, refusal.metadata) == ("artifact_malformed", {"line": "2"})


def test_other_writers_of_proto3_json_are_read() -> None:
    """Names of the contract, numbers as numbers, enums by their number, defaults written out: the same event."""
    members = json.loads(LINES[2])
    event = members["event"]
    event["run_id"] = event.pop("runId")
    event["seq"] = 3
    event["leaseEpoch"] = 1
    event["body"] = {"text_delta": {"stream": 1, "data": event["body"]["textDelta"]["data"].rstrip("=")}}
    assert list(read_event_lines([json.dumps(members).encode()])) == [RUN.events[2]]


def test_what_a_newer_release_has_put_into_the_bytes_is_not_judged() -> None:
    """An event with a field that this release does not know can be read; its text may not name what is not known."""
    newer = RUN.events[2] + bytes([15 << 3, 1])
    line = event_line(3, newer)
    assert list(read_event_lines([json.dumps(line).encode()])) == [newer]
    line["event"]["newer"] = True
    assert refusal_of(json.dumps(line).encode()).reason == "artifact_malformed"


def test_the_deepest_event_that_can_be_stored_can_be_proved() -> None:
    deepest: ev.Json = "x"
    payload = b""
    while True:
        deepest = {"a": deepest}
        data = encode_event(values.RUN_ID, 3, 10**18, 1, encode_body(ev.Custom("a.b", {"x": deepest})))
        try:
            event_pb2.RunEvent.FromString(data)
        except Exception:  # noqa: BLE001 - protobuf's own
            break
        payload = data
    assert list(read_event_lines([json.dumps(event_line(3, payload)).encode()])) == [payload]


# ------------------------------------------------------------------------------------------------- receipts as files


def receipt_refusal(text: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        wire.receipt_of(text)
    return caught.value


def test_a_receipt_as_a_file_is_read_back() -> None:
    assert wire.receipt_of(json.dumps(wire.receipt_document(RUN.receipt)).encode()) == RUN.receipt


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"{", b'{"runId":"run_x",', 1),
        lambda text: text.replace(b"{", b'{"run_id":"run_x",', 1),
        lambda text: text.replace(b"{", b'{"note":1,', 1),
        lambda text: text.replace(b'=="', b'==QUJD"', 1),
        lambda text: b"[" * 100_000,
        lambda text: b'{"runId":' * 5000 + b"1" + b"}" * 5000,
        lambda text: text.decode().encode("utf-16"),
        lambda text: b"\xff" + text,
        lambda text: b"",
        lambda text: json.dumps(json.loads(text) | {"signature": None}).encode(),
        lambda text: b"{}",
    ],
    ids=[
        *("key twice", "both names", "unknown", "after the padding", "deep", "deep, closed", "UTF-16", "bytes"),
        *("empty", "null", "no field"),
    ],
)
def test_a_receipt_with_two_meanings_or_none_is_refused(change: Callable[[bytes], bytes]) -> None:
    text = json.dumps(wire.receipt_document(RUN.receipt)).encode()
    assert change(text) != text
    assert receipt_refusal(change(text)).reason == "artifact_malformed"
