"""Strict JSON by fuzzing: whatever comes, it is a message or a refusal that names a field, never a defect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from openagents.control.v1 import service_account_service_pb2, sync_token_service_pb2
from openagents.runtime.v1 import event_pb2, run_service_pb2
from services.control.edge.door.codec import Codec, decode, encode
from services.control.edge.door.methods import open_methods

CREATE = run_service_pb2.CreateRunRequest
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800")
names = st.sampled_from(
    ["idempotencyKey", "idempotency_key", "spec", "adapter", "title", "exec", "prompt", "threadId", "labels", "argv",
     "environment", "timeoutMs", "text", "topics", "email", ""]
)  # fmt: skip
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def refusal(text: str, message_type: Any = CREATE) -> Refusal:
    with pytest.raises(Refusal) as refused:
        decode(Codec.JSON, text.encode("utf-8", "surrogatepass"), message_type)
    return refused.value


@given(documents)
def test_any_json_is_a_message_or_a_refusal(document: object) -> None:
    body = json.dumps(document).encode()
    try:
        message = decode(Codec.JSON, body, CREATE)
    except Refusal as refused:
        event = refused
    else:
        assert decode(Codec.JSON, encode(Codec.JSON, message), CREATE) == message
        return
    assert event.reason == "malformed_message"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_refusal(body: bytes) -> None:
    for method in open_methods().values():
        for codec in Codec:
            try:
                message = decode(codec, body, method.request_type)
            except Refusal as refused:
                assert refused.reason == "malformed_message"  # noqa: PT017 - both outcomes are good
            else:
                assert isinstance(message, method.request_type)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"spec": ""}, "spec"),
        ({"spec": []}, "spec"),
        ({"spec": "exec"}, "spec"),
        ({"spec": {"exec": {"argv": "git"}}}, "spec.exec.argv"),
        ({"spec": {"exec": {"argv": {"0": "git"}}}}, "spec.exec.argv"),
        ({"spec": {"exec": {"argv": ["git", 1]}}}, "spec.exec.argv[1]"),
        ({"spec": {"exec": {"argv": ["git", None]}}}, "spec.exec.argv[1]"),
        ({"spec": {"exec": {"timeoutMs": "soon"}}}, "spec.exec.timeout_ms"),
        ({"spec": {"exec": {"timeoutMs": -1}}}, "spec.exec.timeout_ms"),
        ({"spec": {"exec": {"command": "git"}}}, "spec.exec"),
        ({"spec": {"labels": {"a": "b", "c": 1}}}, "spec.labels"),
        ({"spec": {"labels": ["a"]}}, "spec.labels"),
        ({"spec": {"exec": {}, "prompt": {}}}, "spec"),
        ({"spec": {"threadId": True}}, "spec.thread_id"),
        ({"Spec": {}}, ""),
        ([], ""),
        ("text", ""),
        (7, ""),
    ],
)
def test_the_field_at_fault_is_named_to_the_element(document: object, field: str) -> None:
    assert refusal(json.dumps(document)).field == field


@pytest.mark.parametrize(
    "text",
    ['{"spec":{},"spec":{}}', '{"idempotency_key":"a","idempotencyKey":"b"}', '{"idempotencyKey":NaN}', "{} {}",
     "{'a':1}", '{"idempotencyKey":"\\ud800"}', "{" * 9999, "[" * 99999, "1" * 9999, "", " ", "\ufeff{}", '{"a":1,}',
     "// {}"],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    assert refusal(text).reason == "malformed_message"


@pytest.mark.parametrize("number", [-1, 2**32, 1.5, "x", "1.5", [1], {}, True])
def test_a_number_outside_its_type_is_refused(number: object) -> None:
    document = json.dumps({"ttlSeconds": number})
    assert refusal(document, sync_token_service_pb2.MintSyncTokenRequest).field == "ttl_seconds"


def test_an_enum_by_an_unknown_name_is_refused() -> None:
    refused = refusal('{"use":"TOKEN_USE_NONE"}', service_account_service_pb2.ExchangeKeyRequest)
    assert refused.field == "use"


def test_both_spellings_of_proto3_json_are_read() -> None:
    for key in ("idempotencyKey", "idempotency_key"):
        assert decode(Codec.JSON, json.dumps({key: "k"}).encode(), CREATE).idempotency_key == "k"


def test_nesting_ends_where_the_contract_does() -> None:
    assert refusal('{"spec":' * 2000 + "{}" + "}" * 2000).reason == "malformed_message"


def test_what_is_encoded_is_proto3_json() -> None:
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["a"], timeout_ms=5))
    message = CREATE(idempotency_key="ä", spec=spec)
    encoded = encode(Codec.JSON, message)
    assert "ä".encode() in encoded
    assert json.loads(encoded) == json_format.MessageToDict(message)
    assert json.loads(encoded)["spec"]["exec"]["timeoutMs"] in (5, "5")
