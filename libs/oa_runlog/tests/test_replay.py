"""Replay artifacts: one form, checked to the last bit, and everything that can be wrong has its own reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog import events as ev
from oa_runlog.proof.chain import chain_next, chain_over, chain_start
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import MAX_LINE_BYTES, artifact_lines, read_artifact, read_event_line
from oa_runlog.proof.verify import verify_artifact, verify_record
from oa_runlog.tests.records import KEY, KEYS, MALLORY, SIGNER, Record, record, records, text
from oa_runlog.tests.values import OTHER_RUN_ID, RUN_ID
from oa_runlog.wire import decode_event, encode_body, encode_event

RUN = record([text(b"abc"), ev.ToolCall("c", "grep", {"n": 1.5}), text(b"de\xff"), ev.Usage("m", 10, 20, 30)])
OTHER = record([text(b"abc")], OTHER_RUN_ID)
LINES = list(artifact_lines(RUN.receipt, RUN.events))
LAST = len(RUN.events)
"""The line of the last event; the trailer is the one after it."""


def refusal_of(lines: list[bytes], **arguments: Any) -> Refusal:
    """What `verify_artifact` raises."""
    with pytest.raises(Refusal) as caught:
        verify_artifact(lines, KEYS, **arguments)
    return caught.value


# ------------------------------------------------------------------------------------------------- the form


def test_every_line_is_canonical_json_by_another_implementation() -> None:
    for line in LINES:
        assert line == rfc8785.dumps(json.loads(line)) + b"\n"


def test_the_lines_say_what_the_documentation_says() -> None:
    header, *events, trailer = [json.loads(line) for line in LINES]
    assert header == {
        "kind": "header",
        "format": "openagents.replay.v1",
        "run_id": RUN_ID,
        "chain": chain_start(RUN_ID).hex(),
    }
    assert [base64.b64decode(event["event"]) for event in events] == RUN.events
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [event["type"] for event in events][:4] == ["run.created", "run.started", "text.delta", "tool.call"]
    assert events[0]["time"] == "2026-11-22T16:57:33.124456003Z"
    assert [event["chain"] for event in events] == [chain_over(RUN_ID, RUN.events[:n]).hex() for n in range(1, 8)]
    assert (trailer["count"], trailer["chain_head"]) == (7, events[-1]["chain"])
    assert trailer["receipt"]["canonical_json"] == RUN.receipt.canonical_json.decode()


@given(records)
def test_every_run_gives_one_artifact_that_holds(run: Record) -> None:
    lines = list(artifact_lines(run.receipt, run.events))
    assert lines == list(artifact_lines(run.receipt, iter(run.events)))
    proved = verify_artifact(iter(lines), KEYS, run_id=run.run_id)
    assert proved.receipt == run.receipt
    assert proved.facts == verify_record(run.receipt, KEYS, run.events)
    assert proved.state.chain_head == chain_over(run.run_id, run.events)
    assert [one.data for one in read_artifact(lines)] == run.events


@given(records)
def test_a_line_by_itself_gives_its_event(run: Record) -> None:
    header, *lines, trailer = artifact_lines(run.receipt, run.events)
    assert [read_event_line(line) for line in lines] == [
        (seq, decode_event(data).type, data) for seq, data in enumerate(run.events, start=1)
    ]
    for other in (header, trailer, b"", b"{}"):
        with pytest.raises((KeyError, ValueError)):
            read_event_line(other)


def test_an_artifact_is_read_line_by_line() -> None:
    """A run of any length: no more than the line at hand is held."""
    taken = 0

    def lines() -> Any:
        nonlocal taken
        for line in LINES:
            taken += 1
            yield line

    reader = read_artifact(lines())
    next(reader)
    assert taken == 2


# ------------------------------------------------------------------------------------------------- tampering


def forged(**changes: object) -> SignedReceipt:
    """Other members under the authority's own signature: what only a dishonest authority could make."""
    data = rfc8785.dumps(json.loads(RUN.receipt.canonical_json) | changes)
    return replace(RUN.receipt, canonical_json=data, signature=KEY.sign(data))


def with_receipt(receipt: SignedReceipt) -> list[bytes]:
    """The artifact with another receipt in a trailer that fits."""
    return [*LINES[:-1], list(artifact_lines(replace(receipt, run_id=RUN_ID), RUN.events))[-1]]


def rewritten(events: list[bytes], change: Callable[[dict[str, Any]], None] = lambda _: None) -> list[bytes]:
    """An artifact made over other events by somebody who knows how, chain, counts, hashes and all."""
    lines = list(artifact_lines(RUN.receipt, events))
    trailer = json.loads(lines[-1])
    change(trailer)
    return [*lines[:-1], rfc8785.dumps(trailer) + b"\n"]


def changed_line(number: int, **members: object) -> list[bytes]:
    """The artifact with other members in one line."""
    line = rfc8785.dumps(json.loads(LINES[number]) | members) + b"\n"
    return [*LINES[:number], line, *LINES[number + 1 :]]


def changed_byte(number: int) -> str:
    """The base64 of an event with one byte changed."""
    data = bytearray(RUN.events[number])
    data[-2] ^= 1
    return base64.b64encode(data).decode()


OTHER_TEXT = encode_event(RUN_ID, 3, 1, 1, encode_body(text(b"xyz")))
ONE_MORE = encode_event(RUN_ID, 8, 1, 1, encode_body(text(b"")))
FOREIGN_EVENT = OTHER.events[1]
TRAILER = len(LINES) - 1
MALLORYS = MALLORY.sign(verify_artifact(LINES, KEYS).state, "log_1")
CHANGED_RECEIPT = RUN.receipt.canonical_json.replace(b"succeeded", b"failed")

TAMPERED: dict[str, tuple[list[bytes], str]] = {
    "changed byte of an event": (changed_line(3, event=changed_byte(2)), "chain_mismatch"),
    "changed byte, chain, hash and count made anew": (
        rewritten([*RUN.events[:2], OTHER_TEXT, *RUN.events[3:]]),
        "chain_mismatch",
    ),
    "dropped event": ([*LINES[:3], *LINES[4:]], "event_missing"),
    "dropped first event": ([LINES[0], *LINES[2:]], "event_missing"),
    "doubled event": ([*LINES[:4], *LINES[3:]], "event_doubled"),
    "swapped events": ([*LINES[:3], LINES[4], LINES[3], *LINES[5:]], "event_misplaced"),
    "tail cut before the trailer": (LINES[:-1], "tail_cut"),
    "tail cut within a line": ([*LINES[:-1], LINES[-1][:-5]], "tail_cut"),
    "last event cut, trailer kept": ([*LINES[:LAST], LINES[-1]], "tail_cut"),
    "last event cut, all made anew": (rewritten(RUN.events[:-1]), "tail_cut"),
    "event added, all made anew": (rewritten([*RUN.events, ONE_MORE]), "outcome_mismatch"),
    "foreign receipt": (with_receipt(OTHER.receipt), "receipt_foreign"),
    "foreign event, all made anew": (rewritten([RUN.events[0], FOREIGN_EVENT, *RUN.events[2:]]), "receipt_foreign"),
    "foreign key": (with_receipt(MALLORYS), "unknown_key"),
    "re-signed under the pinned key's name": (
        with_receipt(replace(RUN.receipt, signature=MALLORYS.signature)),
        "signature_invalid",
    ),
    "receipt changed": (with_receipt(replace(RUN.receipt, canonical_json=CHANGED_RECEIPT)), "signature_invalid"),
    "receipt signed over another outcome": (with_receipt(forged(outcome="failed")), "outcome_mismatch"),
    "receipt signed over another chain": (with_receipt(forged(chain_head="00" * 32)), "chain_mismatch"),
    "receipt signed over more events": (with_receipt(forged(count=8, last_seq=8)), "tail_cut"),
    "receipt signed over fewer events": (with_receipt(forged(count=6, last_seq=6)), "sequence_broken"),
    "trailer with another chain head": (changed_line(TRAILER, chain_head="00" * 32), "chain_mismatch"),
    "trailer with another hash": (changed_line(TRAILER, sha256="00" * 32), "artifact_malformed"),
    "line that says another type than its event": (changed_line(3, type="message"), "artifact_malformed"),
    "line that says another time than its event": (
        changed_line(3, time="2026-11-22T00:00:00.000000000Z"),
        "artifact_malformed",
    ),
    "line with a member more": (changed_line(3, note="x"), "artifact_malformed"),
    "line that is no object": ([LINES[0], b"[]\n", *LINES[1:]], "artifact_malformed"),
    "line that is not canonical": ([*LINES[:3], LINES[3].replace(b'{"', b'{ "', 1), *LINES[4:]], "artifact_malformed"),
    "line of another kind": ([*LINES[:3], LINES[0], *LINES[3:]], "artifact_malformed"),
    "line that is too long": ([LINES[0], b'"' + b"x" * MAX_LINE_BYTES + b'"\n'], "artifact_malformed"),
    "seq that is no number": (changed_line(3, seq="3"), "artifact_malformed"),
    "header of another format": (changed_line(0, format="openagents.replay.v2"), "artifact_malformed"),
    "header with another chain": (changed_line(0, chain="00" * 32), "artifact_malformed"),
    "no header": (LINES[1:], "artifact_malformed"),
    "nothing at all": ([], "artifact_malformed"),
    "lines after the trailer": ([*LINES, LINES[-1]], "artifact_malformed"),
    "trailer without a receipt": (changed_line(TRAILER, receipt={}), "artifact_malformed"),
    "deep nesting": ([b"[" * 100_000 + b"\n"], "artifact_malformed"),
}


@pytest.mark.parametrize(("lines", "reason"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_refused_with_its_own_reason(lines: list[bytes], reason: str) -> None:
    assert refusal_of(lines).reason == reason


def test_a_changed_event_is_named() -> None:
    assert refusal_of(TAMPERED["changed byte of an event"][0]).metadata == {"seq": "3"}


def test_another_run_than_the_one_asked_for_is_foreign() -> None:
    assert refusal_of(LINES, run_id=OTHER_RUN_ID).reason == "receipt_foreign"


def test_old_receipts_hold_after_the_key_was_changed() -> None:
    both = {MALLORY.key_id: MALLORY.public_key, **KEYS}
    assert verify_artifact(LINES, both).receipt.key_id == SIGNER.key_id
    newer = record([], signer=MALLORY)
    assert verify_artifact(artifact_lines(newer.receipt, newer.events), both).receipt.key_id == MALLORY.key_id


@given(st.data())
def test_no_changed_bit_goes_unseen(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(LINES) - 1), label="line")
    index = data.draw(st.integers(0, len(LINES[number]) - 1), label="byte")
    bit = data.draw(st.integers(0, 7), label="bit")
    line = bytearray(LINES[number])
    line[index] ^= 1 << bit
    refusal_of([*LINES[:number], bytes(line), *LINES[number + 1 :]])


@given(st.lists(st.sampled_from(LINES), max_size=len(LINES) + 2).filter(lambda lines: lines != LINES))
def test_no_other_arrangement_of_the_lines_holds(lines: list[bytes]) -> None:
    refusal_of(lines)


@given(st.lists(st.binary(max_size=80).map(lambda line: line + b"\n"), max_size=4))
def test_rubbish_is_refused_and_never_breaks_the_reader(lines: list[bytes]) -> None:
    refusal_of(lines)
    assert refusal_of([LINES[0], *lines]).reason in ("artifact_malformed", "tail_cut")


_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), st.lists, max_leaves=4)


@given(st.data())
def test_members_of_any_other_type_are_refused(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(LINES) - 1), label="line")
    members = json.loads(LINES[number])
    name = data.draw(st.sampled_from(sorted(members)), label="member")
    members[name] = data.draw(_json.filter(lambda value: value != members[name]), label="value")
    line = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    refusal_of([*LINES[:number], line + b"\n", *LINES[number + 1 :]])


def test_a_time_beyond_the_calendar_is_no_event() -> None:
    late = encode_event(RUN_ID, 1, 10**21, 0, encode_body(text(b"")))
    chain = chain_next(chain_start(RUN_ID), late)
    line = {"kind": "event", "seq": 1, "type": "text.delta", "time": "", "chain": chain.hex(), "event": ""}
    line["event"] = base64.b64encode(late).decode()
    assert refusal_of([LINES[0], rfc8785.dumps(line) + b"\n"]).reason == "chain_mismatch"  # type: ignore[arg-type]
