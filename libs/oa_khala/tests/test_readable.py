"""Frames that people can read, of whatever a source has stored."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala import frames, topics
from oa_khala.frames import Form
from oa_khala.readable import readable_json
from oa_khala.tests.read_frames import read_frame
from oa_khala.tests.strategies import server_frames
from oa_khala.wire import encode_server_frame, event_frame
from openagents.projection.v1 import run_summary_pb2
from openagents.runtime.v1 import event_pb2, worker_pb2
from openagents.sync.v1 import frame_pb2

RUN = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
RUNS = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
ULID = "01J9ZQ6T5W3M8K2N4P7R1S0V6X"
UNKNOWN_FIELD = b"\xf8\x07\x01"


def said(text: bytes) -> event_pb2.RunEvent:
    """An event in which the agent says something."""
    delta = event_pb2.TextDelta(stream=event_pb2.TEXT_STREAM_ASSISTANT, data=text)
    return event_pb2.RunEvent(run_id="run_1", seq=2, schema_version=1, body=event_pb2.EventBody(text_delta=delta))


def event(payload: bytes, topic: str = RUN, schema_version: int = 1) -> dict[str, Any]:
    """An EVENT as a reader has it."""
    document: dict[str, Any] = json.loads(readable_json(event_frame(topic, 2, payload, schema_version)).text)
    return document


def snapshot(payload: bytes, topic: str = RUNS) -> dict[str, Any]:
    """A SNAPSHOT as a reader has it."""
    frame = encode_server_frame(frames.Snapshot(topic, 2, payload), Form.PROTO)
    document: dict[str, Any] = json.loads(readable_json(frame).text)
    return document


@given(server_frames)
def test_every_frame_is_written_and_says_the_same(frame: frames.ServerFrame) -> None:
    readable = readable_json(encode_server_frame(frame, Form.PROTO))
    assert read_frame(readable.text, Form.READABLE) == frame


@given(st.binary(max_size=80), st.integers(0, 2))
def test_no_payload_breaks_it(payload: bytes, schema_version: int) -> None:
    for build in (event, snapshot):
        build(payload)
    read = read_frame(readable_json(event_frame(RUN, 2, payload, schema_version)).text, Form.READABLE)
    assert isinstance(read, frames.Event)
    assert (read.seq, read.schema_version) == (2, schema_version)


def test_an_event_is_its_message_with_its_text_beside_it() -> None:
    frame = event(said("Grüße".encode()).SerializeToString())
    assert frame["kind"] == "FRAME_KIND_EVENT"
    assert frame["payload"]["@type"] == "type.googleapis.com/openagents.runtime.v1.RunEvent"
    assert frame["payload"]["body"] == {"textDelta": {"stream": "TEXT_STREAM_ASSISTANT", "data": "R3LDvMOfZQ=="}}
    assert frame["text"] == "Grüße"
    assert not {"payloadBytes", "payloadIncomplete"} & frame.keys()


def test_a_terminal_obeys_nothing_of_it_and_letters_stay_letters() -> None:
    text = readable_json(event_frame(RUN, 2, said("ü\x1b[2J\x7f\u202e\xff".encode()).SerializeToString())).text
    assert b'"text": "\xc3\xbc\\u001b[2J\\u007f\\u202e\xc3\xbf"' in text
    assert event(said(b"\xc3").SerializeToString())["text"] == "\ufffd"


@pytest.mark.parametrize("topic_class", topics.TOPIC_CLASSES, ids=lambda topic_class: topic_class.name)
def test_the_events_of_every_class_of_topic_have_a_message(topic_class: topics.TopicClass) -> None:
    topic = str(topics.Topic(topic_class, topic_class.id_prefix + ULID))
    assert event(b"", topic)["payload"]["@type"].startswith("type.googleapis.com/openagents.")


def _infinite() -> event_pb2.RunEvent:
    made = said(b"")
    made.body.tool_call.arguments["x"] = float("inf")
    return made


@pytest.mark.parametrize(
    "payload",
    [b"\xff", _infinite().SerializeToString(), said(b"").SerializeToString()[:-1]],
    ids=["no message", "a number that JSON lacks", "cut"],
)
def test_what_can_not_be_read_goes_out_as_bytes_and_says_so(payload: bytes) -> None:
    frame = event(payload)
    assert "payload" not in frame
    assert frame["payloadIncomplete"] is True
    read = read_frame(json.dumps(frame).encode(), Form.READABLE)
    assert read == frames.Event(RUN, 2, payload)


def test_another_schema_is_not_guessed_at() -> None:
    frame = event(said(b"x").SerializeToString(), schema_version=2)
    assert "payload" not in frame
    assert (frame["payloadIncomplete"], frame["schemaVersion"]) == (True, 2)


def _documents(*messages: Message, more: bytes = b"") -> bytes:
    given = [message.SerializeToString() + more for message in messages]
    return frame_pb2.DocumentSet(documents=given, older_left_out=True).SerializeToString()


@pytest.mark.parametrize(
    ("make", "payload"),
    [
        (event, said(b"x").SerializeToString() + UNKNOWN_FIELD),
        (snapshot, _documents(run_summary_pb2.RunSummary(run_id="run_1"), more=UNKNOWN_FIELD)),
        (snapshot, _documents(run_summary_pb2.RunSummary(run_id="run_1")) + UNKNOWN_FIELD),
    ],
    ids=["of an event", "of a document", "of a snapshot"],
)
def test_a_field_of_a_newer_source_is_not_lost(make: Callable[[bytes], dict[str, Any]], payload: bytes) -> None:
    frame = make(payload)
    assert frame["payload"]["@type"]
    read = read_frame(json.dumps(frame).encode(), Form.READABLE)
    assert isinstance(read, frames.Event | frames.Snapshot)
    assert read.payload == payload


def test_a_snapshot_holds_its_documents() -> None:
    frame = snapshot(_documents(run_summary_pb2.RunSummary(run_id="run_1"), run_summary_pb2.RunSummary(run_id="run_2")))
    summary = "type.googleapis.com/openagents.projection.v1.RunSummary"
    assert frame["payload"] == {
        "@type": "type.googleapis.com/openagents.sync.v1.ReadableDocumentSet",
        "documents": [{"@type": summary, "runId": "run_1"}, {"@type": summary, "runId": "run_2"}],
        "olderLeftOut": True,
    }
    workers = "org:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:workers"
    [worker] = snapshot(_documents(worker_pb2.Worker(worker_id="wrk_1")), workers)["payload"]["documents"]
    assert worker == {"@type": "type.googleapis.com/openagents.runtime.v1.Worker", "workerId": "wrk_1"}


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(Refusal, match="malformed_message"):
        readable_json(b"\xff")
