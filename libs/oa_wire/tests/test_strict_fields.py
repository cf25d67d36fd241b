"""A protobuf body with a field that the contract doesn't have is refused, wherever the field stands."""

import pytest
from google.protobuf.message import DecodeError, Message

from oa_base.refusal import Refusal
from oa_wire.strict.fields import MAX_LOOKED_AT, read_known
from oa_wire.strict.json import merge_json
from openagents.runtime.v1 import event_pb2, run_service_pb2, worker_service_pb2
from openagents.sync.v1 import topic_service_pb2

SECRET = b"zq9x"
FIELD_1023 = bytes([0xFA, 0x3F, len(SECRET)]) + SECRET
EMPTY_GROUP_1023 = bytes([0xFB, 0x3F, 0xFC, 0x3F])
FIXED32_1 = bytes([0x0D, 1, 0, 0, 0])
"""What no message below has in field 1."""


def inside(number: int, data: bytes) -> bytes:
    """`data` as the message in that field."""
    return bytes([number << 3 | 2, len(data)]) + data


def number(message: type[Message], field: str) -> int:
    return message.DESCRIPTOR.fields_by_name[field].number


CREATE = run_service_pb2.CreateRunRequest
GOOD = CREATE(
    idempotency_key="k",
    spec=event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["a"]), labels={"a": "b", "": ""}),
)
SPEC, EXEC = number(CREATE, "spec"), number(event_pb2.RunSpec, "exec")
EVENTS, TEXT = number(worker_service_pb2.AppendEventsRequest, "events"), number(event_pb2.EventBody, "text_delta")


@pytest.mark.parametrize("unknown", [FIELD_1023, EMPTY_GROUP_1023, FIXED32_1], ids=["text", "group", "wire type"])
@pytest.mark.parametrize(
    ("message_type", "wrap", "path"),
    [
        (CREATE, lambda unknown: unknown, ""),
        (CREATE, lambda unknown: inside(SPEC, unknown), "spec"),
        (CREATE, lambda unknown: inside(SPEC, inside(EXEC, unknown)), "spec.exec"),
        (
            worker_service_pb2.AppendEventsRequest,
            lambda unknown: inside(EVENTS, b"") + inside(EVENTS, inside(TEXT, unknown)),
            "events[1].text_delta",
        ),
    ],
    ids=["body", "nested", "deeper", "in a list"],
)
def test_an_unknown_field_is_refused_with_the_path_of_its_message(message_type, wrap, path, unknown) -> None:  # type: ignore[no-untyped-def]
    good = GOOD.SerializeToString() if message_type is CREATE else b""
    with pytest.raises(Refusal) as caught:
        read_known(good + wrap(unknown), message_type)
    assert (caught.value.reason, caught.value.field) == ("malformed_message", path)
    assert SECRET.decode() not in str(caught.value)
    assert "1023" not in str(caught.value)


def test_json_and_protobuf_name_the_same_place() -> None:
    with pytest.raises(Refusal) as in_json:
        merge_json('{"spec": {"exec": {"zq9x": 1}}}', CREATE())
    with pytest.raises(Refusal) as in_protobuf:
        read_known(inside(SPEC, inside(EXEC, FIELD_1023)), CREATE)
    assert in_json.value.reason == in_protobuf.value.reason
    assert in_json.value.field == in_protobuf.value.field == "spec.exec"


def test_what_the_contract_has_is_read_however_it_is_encoded() -> None:
    written = GOOD.SerializeToString()
    assert read_known(written, CREATE) == GOOD
    # A message in two parts, a field twice, an empty entry of a map: unusual, and nothing unknown.
    labels = number(event_pb2.RunSpec, "labels")
    unusual = written + inside(SPEC, inside(labels, b"")) + inside(SPEC, b"")
    assert read_known(unusual, CREATE) == CREATE.FromString(unusual)
    assert read_known(b"", topic_service_pb2.WatchTopicsRequest) == topic_service_pb2.WatchTopicsRequest()


def test_what_is_no_message_is_the_callers_to_refuse() -> None:
    with pytest.raises(DecodeError):
        read_known(b"\xff", CREATE)


def test_in_a_large_body_the_message_is_not_looked_for_to_the_end() -> None:
    many = inside(EVENTS, b"") * (MAX_LOOKED_AT + 1) + inside(EVENTS, FIELD_1023)
    with pytest.raises(Refusal) as caught:
        read_known(many, worker_service_pb2.AppendEventsRequest)
    assert (caught.value.reason, caught.value.field) == ("malformed_message", "")
