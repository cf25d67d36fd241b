"""Frames that people can read: the JSON of `khala.v2.json`, in which a payload is its message and not its bytes.

This is the only module that opens what events hold. It is used only for connections that speak this form, and it
handles anything that a source has stored: a payload that can't be read goes out as bytes, marked as such.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from oa_base.refusal import Refusal
from oa_base.visible import visible_json
from oa_khala import topics
from oa_khala.frames import SCHEMA_VERSION
from openagents.projection.v1 import notification_pb2, run_summary_pb2
from openagents.runtime.v1 import event_pb2, run_pb2, worker_pb2
from openagents.sync.v1 import frame_pb2, readable_frame_pb2

_KIND = frame_pb2.FrameKind
EVENTS: dict[str, type[Message]] = {
    topics.RUN_EVENTS.name: event_pb2.RunEvent,
    topics.WORKER_LIFECYCLE.name: worker_pb2.WorkerEvent,
    topics.USER_RUNS.name: run_summary_pb2.RunSummary,
    topics.ORG_RUNS.name: run_summary_pb2.RunSummary,
    topics.ORG_WORKERS.name: worker_pb2.Worker,
    topics.USER_NOTIFICATIONS.name: notification_pb2.Notification,
}
"""The messages in events, by the name of the topic's class."""
_OTHERS: dict[int, type[Message]] = {
    # For a run's events; the snapshot of a list is a DocumentSet.
    _KIND.FRAME_KIND_SNAPSHOT: run_pb2.RunSnapshot,
    _KIND.FRAME_KIND_WELCOME: frame_pb2.Welcome,
    _KIND.FRAME_KIND_SUBSCRIBED: frame_pb2.Subscribed,
    _KIND.FRAME_KIND_CAUGHT_UP: frame_pb2.CaughtUp,
    _KIND.FRAME_KIND_HEARTBEAT: frame_pb2.Heartbeat,
    _KIND.FRAME_KIND_ERROR: frame_pb2.Error,
    _KIND.FRAME_KIND_DRAINING: frame_pb2.Draining,
}
_TYPE_URL = "type.googleapis.com/"
# Everything that reading a payload or writing it as JSON can raise: for bytes that are no message, an Any of an unknown
# type, a time beyond the calendar, a number that JSON doesn't have, an object that is nested too deep.
_UNREADABLE = (DecodeError, json_format.Error, ValueError, TypeError, OverflowError, RecursionError, Refusal)


class ReadableJson(NamedTuple):
    """A frame in JSON; `whole` is True when its payload says everything that the source stored."""

    text: bytes
    whole: bool


def readable_json(data: bytes) -> ReadableJson:
    """Return the readable form of a serialized KhalaFrame, whatever its payload. Raises Refusal `malformed_message` for
    bytes that are no KhalaFrame."""
    try:
        frame = frame_pb2.KhalaFrame.FromString(data)
    except DecodeError:
        raise Refusal("malformed_message", "the bytes are no KhalaFrame; see the protocol's proto files") from None
    try:
        message = _with_payload(frame)
        text = _json(message)
    except _UNREADABLE:
        message = _without_payload(frame)
        text = _json(message)
    return ReadableJson(text, not message.payload_incomplete)


def _json(message: readable_frame_pb2.ReadableFrame) -> bytes:
    # Letters stay as they are; characters that a terminal would obey are escaped.
    return visible_json(json_format.MessageToJson(message, indent=None, ensure_ascii=False)).encode()


def _without_payload(frame: frame_pb2.KhalaFrame) -> readable_frame_pb2.ReadableFrame:
    return readable_frame_pb2.ReadableFrame(
        topic=frame.topic,
        seq=frame.seq,
        kind=frame.kind,
        payload_incomplete=True,
        payload_bytes=frame.payload_bytes,
        schema_version=frame.schema_version,
        part=frame.part,
        parts=frame.parts,
    )


def _with_payload(frame: frame_pb2.KhalaFrame) -> readable_frame_pb2.ReadableFrame:
    """Raises an exception in `_UNREADABLE` when the payload is not a message that this version knows."""
    if frame.schema_version != SCHEMA_VERSION or frame.parts:
        raise ValueError(frame)
    message = _without_payload(frame)
    is_list = frame.kind == _KIND.FRAME_KIND_SNAPSHOT and _class_of(frame.topic) != topics.RUN_EVENTS.name
    whole = _write_documents(frame, message) if is_list else _write_message(frame, message)
    message.payload_incomplete = not whole
    if whole:
        message.ClearField("payload_bytes")
    return message


def _write_message(frame: frame_pb2.KhalaFrame, message: readable_frame_pb2.ReadableFrame) -> bool:
    kind = EVENTS[_class_of(frame.topic)] if frame.kind == _KIND.FRAME_KIND_EVENT else _OTHERS.get(frame.kind)
    if kind is None:
        raise ValueError(frame.kind)
    payload = kind.FromString(frame.payload_bytes)
    message.payload.CopyFrom(_any(payload, frame.payload_bytes))
    if isinstance(payload, event_pb2.RunEvent) and payload.body.HasField("text_delta"):
        message.text = payload.body.text_delta.data.decode(errors="replace")
    return _is_known(payload)


def _write_documents(frame: frame_pb2.KhalaFrame, message: readable_frame_pb2.ReadableFrame) -> bool:
    kind = EVENTS[_class_of(frame.topic)]
    given = frame_pb2.DocumentSet.FromString(frame.payload_bytes)
    documents = [kind.FromString(document) for document in given.documents]
    message.payload.Pack(
        readable_frame_pb2.ReadableDocumentSet(
            documents=map(_any, documents, given.documents), older_left_out=given.older_left_out
        )
    )
    return _is_known(given) and all(map(_is_known, documents))


def _class_of(topic: str) -> str:
    return topics.parse_topic(topic).topic_class.name


def _any(message: Message, data: bytes) -> Any:
    return Any(type_url=_TYPE_URL + message.DESCRIPTOR.full_name, value=data)


def _is_known(message: Message) -> bool:
    """Whether all fields of `message` are known. Discards unknown ones."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() == size
