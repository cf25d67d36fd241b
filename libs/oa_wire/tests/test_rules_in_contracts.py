"""The validator refuses what the rules in the contracts refuse, and names the field; nothing breaks it."""

import math
import re
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_wire.rules import check_rules
from oa_wire.tests.contracts import every_message
from openagents.common.v1 import options_pb2
from openagents.runtime.v1 import (
    event_pb2,
    log_service_pb2,
    run_service_pb2,
    worker_service_pb2,
)

F = descriptor_pb2.FieldDescriptorProto
Rules = options_pb2.FieldRules


def _field(name: str, number: int, kind: Any, label: Any = F.LABEL_OPTIONAL, **rules: Any) -> F:
    field = F(name=name, number=number, type=kind, label=label)
    field.options.Extensions[options_pb2.rules].CopyFrom(Rules(**rules))
    return field


def _rules_message() -> type[Message]:
    """A message with every kind of rule on every kind of field that it applies to."""
    file = descriptor_pb2.FileDescriptorProto(name="oa_wire/rules_test.proto", package="rules_test", syntax="proto3")
    file.dependency.append("openagents/common/v1/options.proto")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="KIND_UNSPECIFIED", number=0)
    kind.value.add(name="KIND_ONE", number=1)
    sub = file.message_type.add(name="Sub")
    sub.field.append(_field("text", 1, F.TYPE_STRING, required=True))
    top = file.message_type.add(name="Top")
    entry = top.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    entry.field.append(F(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL))
    entry.field.append(F(name="value", number=2, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL))
    top.field.extend(
        [
            _field("text", 1, F.TYPE_STRING, min_length=2, max_length=3, pattern="[a-zä]+"),
            _field("data", 2, F.TYPE_BYTES, max_length=2),
            _field("number", 3, F.TYPE_INT64, bounded=True, minimum=-5, maximum=5),
            _field("ratio", 4, F.TYPE_DOUBLE, bounded=True, minimum=0, maximum=1),
            _field("kind", 5, F.TYPE_ENUM),
            _field("kinds", 6, F.TYPE_ENUM, F.LABEL_REPEATED, max_items=2),
            _field("texts", 7, F.TYPE_STRING, F.LABEL_REPEATED, min_items=2, max_items=3, max_length=1),
            _field("labels", 8, F.TYPE_MESSAGE, F.LABEL_REPEATED, max_items=1, max_length=3),
            _field("subs", 9, F.TYPE_MESSAGE, F.LABEL_REPEATED),
            _field("count", 10, F.TYPE_UINT32, required=True),
        ]
    )
    for index, type_name in ((4, "Kind"), (5, "Kind"), (7, "Top.LabelsEntry"), (8, "Sub")):
        top.field[index].type_name = f".rules_test.{type_name}"
    optional = _field("maybe", 11, F.TYPE_STRING, required=True, max_length=1)
    optional.proto3_optional = True
    optional.oneof_index = 0
    top.field.append(optional)
    top.oneof_decl.add(name="_maybe")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rules_test.Top"))


TOP = _rules_message()
GOOD = {"texts": ["a", "b"], "count": 1, "maybe": "m"}


def _refused(message: Message) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_rules(message)
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": "ab"},
        {"text": "äää"},
        {"data": b"ab"},
        {"number": -5},
        {"number": 5},
        {"ratio": 1.0},
        {"kind": 1},
        {"kinds": [0, 1]},
        {"texts": ["a", "b", "c"]},
        {"labels": {"abc": "abc"}},
        {"subs": [{"text": "x"}]},
    ],
    ids=str,
)
def test_what_is_within_the_rules_is_taken(fields: dict[str, Any]) -> None:
    check_rules(TOP(**{**GOOD, **fields}))


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"text": "a"}, "invalid_value", "text"),
        ({"text": "abcd"}, "invalid_value", "text"),
        ({"text": "a1"}, "invalid_value", "text"),
        ({"text": "ab\n"}, "invalid_value", "text"),
        ({"data": b"abc"}, "invalid_value", "data"),
        ({"number": -6}, "invalid_value", "number"),
        ({"number": 6}, "invalid_value", "number"),
        ({"ratio": 1.5}, "invalid_value", "ratio"),
        ({"ratio": math.nan}, "invalid_value", "ratio"),
        ({"kind": 2}, "invalid_enum", "kind"),
        ({"kind": -1}, "invalid_enum", "kind"),
        ({"kinds": [1, 7]}, "invalid_enum", "kinds[1]"),
        ({"kinds": [1, 1, 1]}, "invalid_value", "kinds"),
        ({"texts": []}, "missing_field", "texts"),
        ({"texts": ["a"]}, "invalid_value", "texts"),
        ({"texts": ["a"] * 4}, "invalid_value", "texts"),
        ({"texts": ["a", "bb"]}, "invalid_value", "texts[1]"),
        ({"labels": {"a": "b", "c": "d"}}, "invalid_value", "labels"),
        ({"labels": {"abcd": "a"}}, "invalid_value", "labels"),
        ({"labels": {"a": "abcd"}}, "invalid_value", "labels"),
        ({"subs": [{"text": "x"}, {}]}, "missing_field", "subs[1].text"),
        ({"count": 0}, "missing_field", "count"),
        ({"maybe": ""}, "missing_field", "maybe"),
        ({"maybe": None}, "missing_field", "maybe"),
        ({"maybe": "mm"}, "invalid_value", "maybe"),
    ],
    ids=str,
)
def test_outside_of_the_rules(fields: dict[str, Any], reason: str, field: str) -> None:
    refusal = _refused(TOP(**{**GOOD, **fields}))
    assert (refusal.reason, refusal.field) == (reason, field)


def test_the_contracts_name_nested_fields() -> None:
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["git", ""]))
    check_rules(run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec))
    spec.labels.update({str(number): "x" for number in range(33)})
    refusal = _refused(run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec))
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.labels")


def test_a_oneof_without_a_member_is_a_missing_payload() -> None:
    assert _refused(worker_service_pb2.AttachRequest()).reason == "missing_payload"
    request = worker_service_pb2.AppendEventsRequest(
        run_id=f"run_{'0' * 26}", idempotency_key="k", lease_epoch=1, events=[event_pb2.EventBody()]
    )
    refusal = _refused(worker_service_pb2.AttachRequest(append=request))
    assert (refusal.reason, refusal.field) == ("missing_payload", "append.events[0].kind")


def test_an_enum_that_must_be_chosen_is_an_invalid_enum() -> None:
    refusal = _refused(event_pb2.EventBody(text_delta=event_pb2.TextDelta()))
    assert (refusal.reason, refusal.field) == ("invalid_enum", "text_delta.stream")


def test_unknown_fields_pass() -> None:
    data = log_service_pb2.DescribeLogRequest().SerializeToString() + b"\xfa\x3f\x01x"
    check_rules(log_service_pb2.DescribeLogRequest.FromString(data))


MESSAGES = list(every_message())


def test_every_rule_in_the_contracts_can_be_enforced() -> None:
    """A pattern that doesn't compile, or a rule on a field that it can't apply to, is a defect of proto/."""
    texts = (F.TYPE_STRING, F.TYPE_BYTES)
    checked = 0
    for field in (field for message in MESSAGES for field in message.fields):
        rules = field.GetOptions().Extensions[options_pb2.rules]
        re.compile(rules.pattern)
        assert not (rules.min_items or rules.max_items) or field.is_repeated, field.full_name
        is_text = field.type in texts or (field.message_type and field.message_type.GetOptions().map_entry)
        assert not (rules.min_length or rules.max_length or rules.pattern) or is_text, field.full_name
        assert not rules.bounded or rules.minimum <= rules.maximum, field.full_name
        checked += rules.ByteSize() > 0
    assert checked > 50


@given(st.data())
def test_whatever_parses_is_accepted_or_refused(data: st.DataObject) -> None:
    message_class = message_factory.GetMessageClass(data.draw(st.sampled_from(MESSAGES)))
    try:
        message = message_class.FromString(data.draw(st.binary(max_size=80)))
    except DecodeError:
        return
    assert _field_at_fault(message) != ""


def _field_at_fault(message: Message) -> str | None:
    try:
        check_rules(message)
    except Refusal as refusal:
        return refusal.field
    return None
