"""What a run's log gets of what an app-server says: everything that can stand in it, and what was left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from oa_wire.rules import check_rules
from oa_worker.adapters.codex.events import TurnEvents
from oa_worker.adapters.codex.fitting import cut, fitted, pieces
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.lines import BadLine, Lines
from oa_worker.adapters.codex.tests.odd import JSON
from oa_worker.sdk.transport.wire import check_nesting
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

SMALL = CodexLimits(max_item_bytes=2_000, max_output_bytes=10, max_message_bytes=40, max_result_bytes=60)
METHODS = [
    "error",
    "item/agentMessage/delta",
    "item/commandExecution/outputDelta",
    "item/completed",
    "item/started",
    "something/new",
    "thread/tokenUsage/updated",
    "turn/completed",
    "turn/started",
    "",
]
KEYS = ["threadId", "turnId", "itemId", "item", "delta", "turn", "tokenUsage", "error", "id", "type", "text", "status"]
PARAMS = st.dictionaries(
    st.sampled_from(KEYS) | st.text(max_size=5),
    JSON | st.just("T") | st.dictionaries(st.sampled_from(KEYS), JSON | st.just("agentMessage"), max_size=4),
    max_size=8,
)


def turn_events(limits: CodexLimits = SMALL) -> TurnEvents:
    made = TurnEvents("T", "m", limits)
    made.turn_id = "U"
    return made


def mine(**params: Any) -> dict[str, Any]:
    return {"threadId": "T", "turnId": "U", **params}


@given(st.sampled_from(METHODS) | st.text(max_size=200), PARAMS)
def test_whatever_is_said_makes_events_that_a_log_takes(method: str, params: dict[str, Any]) -> None:
    for event in turn_events().of(method, params):
        check_rules(event)
        check_nesting(event)
        assert pb.EventBody.FromString(event.SerializeToString()) == event
        assert event.ByteSize() <= SMALL.max_item_bytes + 1_000 or event.HasField("text_delta")


@given(JSON)
def test_content_fits(content: Any) -> None:
    assert fitted(content, 500, 4).ByteSize() <= 500


def test_what_fits_is_kept_as_it_was_sent() -> None:
    content = {"a": [1, 2.5, None, True, "text"], "b": {"c": "d"}}
    assert json_format.MessageToDict(fitted(content, 10_000, 24)) == content


def test_what_is_left_out_says_so() -> None:
    long = json_format.MessageToDict(fitted({"output": "x" * 10_000, "id": "i"}, 1_000, 24))
    assert long["id"] == "i"
    assert "10000 bytes in all, cut here" in long["output"]
    deep: Any = "end"
    for _ in range(200):
        deep = [deep]
    assert "nested too deeply" in json.dumps(json_format.MessageToDict(fitted(deep, 10_000, 24)))
    assert "left_out" in json_format.MessageToDict(fitted({str(n): n for n in range(10_000)}, 1_000, 24))
    odd = json_format.MessageToDict(fitted({"nul": "a\0b", "half": "\ud800", "large": 2**60, "inf": 1e999}, 1_000, 24))
    assert odd == {"nul": "a\ufffdb", "half": "?", "large": str(2**60), "inf": "inf"}


@pytest.mark.parametrize("text", ["", "short", "ä" * 100, "𝄞" * 100])
def test_texts_are_cut_between_characters(text: str) -> None:
    assert len(cut(text, 50).encode()) <= 50
    assert "".join(pieces(text, 40)) == text
    assert all(len(piece.encode()) <= 40 for piece in pieces(text, 40))


def test_more_output_than_the_limit_is_left_out_and_that_is_said_once() -> None:
    events, said = turn_events(), b""
    for _ in range(5):
        for event in events.of("item/commandExecution/outputDelta", mine(itemId="i", delta="1234")):
            said += event.text_delta.data
    assert said == b"1234123412\n[more than 10 bytes of output: the rest is left out]\n"
    other = events.of("item/commandExecution/outputDelta", mine(itemId="j", delta="1234"))
    assert other[0].text_delta.data == b"1234", "each command has its own"


def test_a_long_message_becomes_several_and_the_result_has_its_beginning() -> None:
    events = turn_events()
    told = events.of("item/completed", mine(item={"type": "agentMessage", "id": "m", "text": "x" * 100}))
    assert "".join(event.message.text for event in told) == "x" * 100
    assert len(told) == 10
    assert events.last_message.startswith("xxx")
    assert "100 bytes in all" in events.last_message


def usage(total: int, last: int, turn: str = "U") -> dict[str, Any]:
    counts = {"outputTokens": 0, "cachedInputTokens": 0}
    return {
        "threadId": "T",
        "turnId": turn,
        "tokenUsage": {"total": {**counts, "inputTokens": total}, "last": {**counts, "inputTokens": last}},
    }


def used(events: TurnEvents, *reports: dict[str, Any]) -> list[int]:
    return [e.usage.input_tokens for report in reports for e in events.of("thread/tokenUsage/updated", report)]


def test_usage_is_counted_once() -> None:
    assert used(turn_events(), usage(10, 10), usage(10, 10), usage(25, 15)) == [10, 15], "a report made twice"
    assert used(turn_events(), usage(100, 7, "before"), usage(110, 10)) == [10], "a resumed thread"
    assert used(turn_events(), usage(110, 10)) == [10], "one that says nothing of what was before"


def test_other_threads_are_helpers_and_do_not_speak_for_the_turn() -> None:
    events = turn_events()
    theirs = {"threadId": "helper", "turnId": "V"}
    assert events.of("item/agentMessage/delta", {**theirs, "delta": "x"}) == []
    assert events.of("thread/tokenUsage/updated", {**usage(1, 1), **theirs}) == []
    (message,) = events.of("item/completed", {**theirs, "item": {"type": "agentMessage", "id": "m", "text": "x"}})
    assert message.codex_event.codex_thread_id == "helper"
    assert message.codex_event.item.item_type == "agentMessage"
    (ended,) = events.of("turn/completed", {**theirs, "turn": {"id": "V", "status": "completed"}})
    assert ended.codex_event.HasField("item"), "not the end of our turn"


def test_an_end_that_is_not_known_is_a_failure() -> None:
    (ended,) = turn_events().of("turn/completed", mine(turn={"id": "U", "status": "evaporated"}))
    assert ended.codex_event.turn.status == codex_pb2.TURN_STATUS_FAILED


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_messages_come_out_however_the_bytes_come_in(chunks: list[bytes]) -> None:
    line = b'{"method":"a","params":{"text":"\xc3\xa4"}}'
    lines, found = Lines(1_000), []
    data = line + b"\n\n" + line + b"\r\n"
    for at in range(0, len(data), 1 + len(chunks)):
        found += lines.feed(data[at : at + 1 + len(chunks)])
    assert [message["params"]["text"] for message in found] == ["ä", "ä"]


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_line_and_nothing_else(data: bytes) -> None:
    try:
        for message in Lines(100).feed(data):
            assert isinstance(message, dict)
    except BadLine:
        pass
