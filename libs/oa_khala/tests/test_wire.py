"""Frames to bytes and back, and everything that is not a frame."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala import frames, wire
from oa_khala.frames import Form
from oa_khala.tests.strategies import client_frames, server_frames
from openagents.sync.v1 import client_frame_pb2, frame_pb2

TOPIC = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
forms = st.sampled_from(Form)
server_forms = st.sampled_from((Form.PROTO, Form.JSON))


def _refusal(decode: Callable[[bytes, Form], object], data: bytes, form: Form) -> Refusal | None:
    try:
        decode(data, form)
    except Refusal as refusal:
        return refusal
    return None


@given(client_frames, forms)
def test_client_frames_survive_the_round_trip(frame: frames.ClientFrame, form: Form) -> None:
    assert wire.decode_client_frame(wire.encode_client_frame(frame, form), form) == frame


@given(server_frames, server_forms)
def test_server_frames_survive_the_round_trip(frame: frames.ServerFrame, form: Form) -> None:
    assert wire.decode_server_frame(wire.encode_server_frame(frame, form), form) == frame


@given(server_frames)
def test_the_json_form_says_the_same_as_the_binary_one(frame: frames.ServerFrame) -> None:
    as_json = wire.proto_to_json(wire.encode_server_frame(frame, Form.PROTO))
    assert wire.decode_server_frame(as_json, Form.JSON) == frame
    json.loads(as_json)


@given(st.binary(max_size=200), forms)
def test_arbitrary_bytes_give_a_frame_or_a_refusal(data: bytes, form: Form) -> None:
    for decode in (wire.decode_client_frame, wire.decode_server_frame):
        refusal = _refusal(decode, data, form)
        assert refusal is None or refusal.info.http_status in (400, 426)


@given(client_frames, st.integers(0, 200), forms)
def test_a_cut_client_frame_never_becomes_an_internal_error(frame: frames.ClientFrame, length: int, form: Form) -> None:
    refusal = _refusal(wire.decode_client_frame, wire.encode_client_frame(frame, form)[:length], form)
    assert refusal is None or refusal.info.close_code == 4400


HELLO = {"deviceId": "dev_1", "clientBuildId": "t/1", "protocolVersion": 1, "schemaVersion": 1}


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({}, "missing_payload", "body"),
        ({"hello": {**HELLO, "deviceId": ""}}, "missing_field", "hello.device_id"),
        ({"hello": {**HELLO, "protocolVersion": 0}}, "missing_field", "hello.protocol_version"),
        ({"hello": {**HELLO, "deviceId": "d" * 65}}, "invalid_value", "hello.device_id"),
        ({"hello": {**HELLO, "token": "t" * 8193}}, "invalid_value", "hello.token"),
        ({"hello": {**HELLO, "token": 5}}, "malformed_message", "hello.token"),
        ({"hello": {**HELLO, "surprise": 5}}, "malformed_message", "hello"),
        ({"hello": {**HELLO, "schemaVersion": -1}}, "malformed_message", "hello.schema_version"),
        ({"hello": HELLO, "ping": {}}, "malformed_message", ""),
        ({"subscribe": {}}, "missing_field", "subscribe.topics"),
        ({"subscribe": {"topics": [{"topic": "t"}] * 129}}, "invalid_value", "subscribe.topics"),
        (
            {"subscribe": {"topics": [{"topic": "a"}, {"topic": "b", "cursor": {"topic": "a", "epoch": "e"}}]}},
            "payload_mismatch",
            "subscribe.topics[1].cursor.topic",
        ),
        (
            {"subscribe": {"topics": [{"topic": "b", "cursor": {"appliedSeq": "x"}}]}},
            "malformed_message",
            "subscribe.topics[0].cursor.applied_seq",
        ),
        *(
            (
                {"subscribe": {"topics": [{"topic": "b", "cursor": {"chain": base64.b64encode(chain).decode()}}]}},
                "invalid_value",
                "subscribe.topics[0].cursor.chain",
            )
            for chain in (b"c" * 31, b"c" * 33)
        ),
        ({"unsubscribe": {}}, "missing_field", "unsubscribe.topics"),
        ({"refreshToken": {}}, "missing_field", "refresh_token.token"),
    ],
)
def test_each_defect_is_refused_with_its_field(body: dict[str, object], reason: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.decode_client_frame(json.dumps(body).encode(), Form.JSON)
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"[" * 60_000, b'{"a":' * 12_000, b"{", b"null", b"\xff\xfe", b'{"hello":{},"hello":{}}', b"1" * 9],
)
def test_json_that_is_none_is_a_malformed_message(data: bytes) -> None:
    with pytest.raises(Refusal, match="malformed_message"):
        wire.decode_client_frame(data, Form.JSON)


def test_a_refusal_never_echoes_what_was_sent() -> None:
    body = {"hello": {**HELLO, "token": "secret" * 2000}}
    with pytest.raises(Refusal) as caught:
        wire.decode_client_frame(json.dumps(body).encode(), Form.JSON)
    assert "secret" not in str(caught.value)
    with pytest.raises(Refusal) as caught:
        wire.decode_client_frame(b'{"refreshToken":{"token":"secret}}', Form.JSON)
    assert "secret" not in str(caught.value)


def test_an_unknown_kind_is_kept_apart_and_an_unknown_schema_refused() -> None:
    unknown = frame_pb2.KhalaFrame(kind=99, schema_version=7).SerializeToString()  # type: ignore[arg-type]
    assert wire.decode_server_frame(unknown, Form.PROTO) == frames.UnknownFrame(99)
    newer = frame_pb2.KhalaFrame(kind=frame_pb2.FRAME_KIND_WELCOME, schema_version=2).SerializeToString()
    with pytest.raises(Refusal, match="unsupported_schema_version"):
        wire.decode_server_frame(newer, Form.PROTO)


def test_an_events_payload_is_never_opened() -> None:
    payload = bytes(range(256))
    data = wire.event_frame(TOPIC, 3, payload)
    assert frame_pb2.KhalaFrame.FromString(data).payload_bytes == payload
    assert wire.decode_server_frame(data, Form.PROTO) == frames.Event(TOPIC, 3, payload)


def test_unknown_fields_of_a_newer_client_are_tolerated_in_binary() -> None:
    data = client_frame_pb2.ClientFrame(ping=client_frame_pb2.Ping(nonce=4)).SerializeToString() + b"\xf8\x07\x01"
    assert wire.decode_client_frame(data, Form.PROTO) == frames.Ping(4)
