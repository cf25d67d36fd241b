"""The chain over an audit log: whatever is done to a file is found, a cut or rewritten log by who holds a head."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.proof.audit import (
    MAX_LINE_BYTES,
    AuditHead,
    audit_event_line,
    audit_first_line,
    audit_start,
    read_audit_head,
    verify_audit_log,
)

ORG = "org_a"
TEXTS = dict.fromkeys(("time", "action", "reason", "actor", "target", "network", "request_id"), "")
Texts = list[str]
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=8)


def written(actors: Texts, start: AuditHead | None = None, org_id: str = ORG) -> tuple[list[bytes], list[AuditHead]]:
    """The lines of a log of these events, and the head at each place."""
    heads = [start or audit_start(org_id)]
    lines = [audit_first_line(org_id, heads[0])]
    for actor in actors:
        event = canonical_json({**TEXTS, "sequence": heads[-1].sequence + 1, "org_id": org_id, "actor": actor})
        heads.append(heads[-1].after(event))
        lines.append(audit_event_line(event, heads[-1].chain))
    return lines, heads


def reason(lines: list[bytes], known: AuditHead | None = None) -> str:
    with pytest.raises(Refusal) as refused:
        verify_audit_log(lines, org_id=ORG, known=known)
    return refused.value.reason


@pytest.mark.parametrize("name", TEXTS)
def test_an_event_that_lacks_what_every_event_states_is_none(name: str) -> None:
    head = audit_start(ORG)
    event: dict[str, Canonical] = {**TEXTS, "sequence": 1, "org_id": ORG, "of_later": 1}
    for value in ("", None, 5):
        data = canonical_json({**event, name: value})
        lines = [audit_first_line(ORG, head), audit_event_line(data, head.after(data).chain)]
        if value == "":
            assert verify_audit_log(lines).count == 1
        else:
            assert reason(lines) == "artifact_malformed"
    del event[name]
    data = canonical_json(event)
    assert reason([audit_first_line(ORG, head), audit_event_line(data, head.after(data).chain)]) == "artifact_malformed"


@given(texts, st.integers(0, 5))
def test_what_was_written_verifies_from_any_start(actors: Texts, before: int) -> None:
    _, earlier = written(["x"] * before)
    lines, heads = written(actors, earlier[-1])
    for known in heads:
        found = verify_audit_log(lines, org_id=ORG, known=known)
        assert (found.start, found.head, found.count, found.known_compared) == (
            earlier[-1],
            heads[-1],
            len(actors),
            True,
        )
    assert verify_audit_log(lines, known=earlier[0]).known_compared is (before == 0)


@given(texts, st.data())
def test_any_changed_byte_is_found(actors: Texts, data: st.DataObject) -> None:
    lines, heads = written(actors)
    where = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[where])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    lines[where] = bytes(line)
    reason(lines, heads[-1])


@given(texts, st.data())
def test_a_removed_event_is_found(actors: Texts, data: st.DataObject) -> None:
    lines, heads = written(actors)
    where = data.draw(st.integers(1, len(actors)))
    del lines[where]
    assert reason(lines, heads[-1]) == ("event_missing" if where < len(actors) else "log_rolled_back")


@given(texts, st.data())
def test_a_repeated_event_is_found(actors: Texts, data: st.DataObject) -> None:
    lines, _ = written(actors)
    line = lines[data.draw(st.integers(1, len(actors)))]
    place = data.draw(st.integers(1, len(lines)))
    lines.insert(place, line)
    assert reason(lines) in ("event_doubled", "event_misplaced")


@given(texts.filter(lambda actors: len(actors) > 1), st.data())
def test_exchanged_events_are_found(actors: Texts, data: st.DataObject) -> None:
    lines, _ = written(actors)
    one, other = data.draw(st.lists(st.integers(1, len(actors)), min_size=2, max_size=2, unique=True))
    lines[one], lines[other] = lines[other], lines[one]
    assert reason(lines) == "event_misplaced"


@given(texts, st.data())
def test_a_cut_tail_is_found_by_who_holds_the_head(actors: Texts, data: st.DataObject) -> None:
    lines, heads = written(actors)
    kept = lines[: data.draw(st.integers(1, len(actors)))]
    verify_audit_log(kept)  # nobody else can tell
    assert reason(kept, heads[-1]) == "log_rolled_back"


@given(texts, st.data())
def test_a_rewritten_log_is_found_by_who_holds_a_head(actors: Texts, data: st.DataObject) -> None:
    _, heads = written(actors)
    where = data.draw(st.integers(0, len(actors) - 1))
    other = [*actors[:where], actors[where] + "!", *actors[where + 1 :]]
    lines, _ = written(other)
    verify_audit_log(lines)
    held = data.draw(st.integers(where + 1, len(actors)))
    assert reason(lines, heads[held]) == "log_forked"
    assert verify_audit_log(lines, known=heads[where]).known_compared


def _first_line(**changed: object) -> bytes:
    members = {**json.loads(written(["a"])[0][0]), **changed}
    return canonical_json(members) + b"\n"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: [], "tail_cut"),
        (lambda lines: lines[1:], "artifact_malformed"),
        (lambda lines: [lines[0], lines[1][:-1]], "tail_cut"),
        (lambda lines: [lines[0], b"{}\n"], "artifact_malformed"),
        (lambda lines: [lines[0], b"[]\n"], "artifact_malformed"),
        (lambda lines: [lines[0], lines[1].replace(b":", b": ", 1)], "artifact_malformed"),
        (lambda lines: [lines[0], lines[1].replace(b'"sequence":1', b'"sequence":"1"')], "artifact_malformed"),
        (lambda lines: [lines[0], lines[1].replace(b'"sequence":1', b'"sequence":0')], "sequence_broken"),
        (lambda lines: [lines[0], b"x" * MAX_LINE_BYTES + b"\n"], "artifact_malformed"),
        (lambda lines: [_first_line(kind="other"), *lines[1:]], "artifact_malformed"),
        (lambda lines: [_first_line(org_id=1), *lines[1:]], "artifact_malformed"),
        (lambda lines: [_first_line(chain="0" * 64), *lines[1:]], "chain_mismatch"),
        (lambda lines: [_first_line(org_id="org_b"), *lines[1:]], "chain_mismatch"),
        (lambda lines: written(["a"], org_id="org_b")[0], "chain_mismatch"),
        (lambda lines: [lines[0], written(["a"], org_id="org_b")[0][1]], "chain_mismatch"),
        (lambda lines: [_first_line(sequence=7), *lines[1:]], "sequence_broken"),
    ],
)
def test_what_is_no_log_says_what_is_wrong(change: Callable[[list[bytes]], list[bytes]], found: str) -> None:
    assert reason(change(written(["a"])[0])) == found


def test_an_event_that_states_a_chain_is_not_written() -> None:
    with pytest.raises(Refusal) as refused:
        audit_event_line(canonical_json({"chain": "0"}), bytes(32))
    assert refused.value.reason == "artifact_malformed"


def test_a_head_is_read_as_it_is_written() -> None:
    head = audit_start(ORG).after(b"{}")
    assert read_audit_head(str(head)) == head
    for text in ("", "1", f"01:{'0' * 64}", f"1:{'0' * 63}", f"1:{'A' * 64}", f"-1:{'0' * 64}", f"1:{'0' * 64}\n"):
        with pytest.raises(ValueError, match="no head"):
            read_audit_head(text)
