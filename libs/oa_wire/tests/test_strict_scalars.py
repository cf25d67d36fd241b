"""Numbers, times and names in proto3 JSON: each is taken in the forms of the specification, and in no other."""

from __future__ import annotations

import json
from functools import cache

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from oa_base.refusal import Refusal
from oa_wire.strict.json import merge_json

Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "i32": Field.TYPE_INT32,
    "i64": Field.TYPE_INT64,
    "u64": Field.TYPE_UINT64,
    "fixed": Field.TYPE_FIXED32,
    "f32": Field.TYPE_FLOAT,
    "f64": Field.TYPE_DOUBLE,
    "flag": Field.TYPE_BOOL,
}
_MESSAGES = {
    "w_int": "google.protobuf.Int64Value",
    "w_float": "google.protobuf.DoubleValue",
    "w_bytes": "google.protobuf.BytesValue",
    "at": "google.protobuf.Timestamp",
    "ttl": "google.protobuf.Duration",
    "any": "google.protobuf.Value",
}
_MAPS = {"by_number": (Field.TYPE_INT32, Field.TYPE_STRING), "counts": (Field.TYPE_STRING, Field.TYPE_INT64)}


@cache
def _class() -> type[Message]:
    """A message with a field of each kind."""
    imports = [one.DESCRIPTOR.name for one in (wrappers_pb2, timestamp_pb2, duration_pb2, struct_pb2)]
    file = descriptor_pb2.FileDescriptorProto(name="numbers.proto", package="t", syntax="proto3", dependency=imports)
    message = file.message_type.add(name="M")
    enum = message.enum_type.add(name="Kind")
    for number, name in enumerate(("NONE", "ONE")):
        enum.value.add(name=name, number=number)
    for name, kind in _SCALARS.items():
        message.field.add(name=name, number=len(message.field) + 1, type=kind, label=Field.LABEL_OPTIONAL)
    for name, full_name in _MESSAGES.items():
        message.field.add(
            name=name, number=len(message.field) + 1, type=Field.TYPE_MESSAGE, type_name=f".{full_name}", label=1
        )
    message.field.add(name="kind", number=40, type=Field.TYPE_ENUM, type_name=".t.M.Kind", label=1)
    message.field.add(name="many", number=41, type=Field.TYPE_INT32, label=Field.LABEL_REPEATED)
    for number, (name, (key, value)) in enumerate(_MAPS.items(), start=50):
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=key, label=1)
        entry.field.add(name="value", number=2, type=value, label=1)
        message.field.add(
            name=name,
            number=number,
            type=Field.TYPE_MESSAGE,
            type_name=f".t.M.{entry.name}",
            label=Field.LABEL_REPEATED,
        )
    pool = descriptor_pool.DescriptorPool()
    for one in (wrappers_pb2, timestamp_pb2, duration_pb2, struct_pb2):
        pool.AddSerializedFile(one.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("t.M"))


FOREIGN = ["6_0", "٦٠", "+60", " 60", "60 ", "\n60", "060", "0x3c", "６０", "60.", ".6", "", "1e", "--6"]
INTEGERS = ["i32", "i64", "u64", "fixed", "w_int"]
FLOATS = ["f32", "f64", "w_float"]


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_a_text_that_is_no_number_of_json_is_refused_by_its_field(name: str, text: str) -> None:
    _refused({name: text}, name)


@pytest.mark.parametrize("value", ["NaN", "Infinity", True, 1.5, "1.5"])
@pytest.mark.parametrize("name", INTEGERS)
def test_what_is_no_whole_number_is_refused(name: str, value: object) -> None:
    _refused({name: value}, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("f64", text) for text in ("nan", "inf", "infinity", "-inf", "+Infinity", "1e999")),
        *(("f32", value) for value in ("1e39", "-1e39", 10**39)),
        ("f64", True),
        ("f64", 10**400),
        *(("kind", value) for value in ("٣", "1_0", "+1", " 1", "one", True, 1.5)),
        *(("kind", value) for value in (2**32 + 1, str(2**32 + 1), 2.0**32, 2**31, -(2**31) - 1, "9" * 5000)),
        *((name, 10**400) for name in ("kind", "any", "i32", "w_int", "w_float", "f32", "at", "ttl", "flag")),
        *(("flag", value) for value in ("true", 1)),
        *(("at", text) for text in ("٢٠٢٦-01-01T00:00:00Z", "2026-1-1T0:0:0Z", "2026-01-01T00:00:00.1_0Z")),
        *(("at", text) for text in ("2026-01-01T00:00:00+1:0", "2026-01-01 00:00:00Z")),
        *(("at", f"2026-01-01T00:00:00{offset}") for offset in ("+24:00", "-00:60", "+99:99")),
        *(("ttl", text) for text in ("6_0s", "٦٠s", "+6s", " 6s", "5.s", "60")),
        ("w_bytes", "AA*="),
    ],
)
def test_other_values_with_a_form_of_their_own_are_refused_by_their_field(name: str, value: object) -> None:
    _refused({name: value}, name)


@pytest.mark.parametrize("key", [*FOREIGN, "1e1", "1.0", "-0"])
def test_a_key_that_is_no_plain_number_is_refused(key: str) -> None:
    _refused({"byNumber": {key: "x"}}, "by_number")


def test_numbers_within_lists_and_maps_are_checked() -> None:
    _refused({"many": [1, "6_0"]}, "many[1]")
    _refused({"counts": {"a": "+1"}}, "counts")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"many": [*range(5000), 2**40, *range(5000)]}, "many[5000]"),
        ({"counts": {**{f"k{number}": 0 for number in range(5000)}, "a": 2**70, "b": 0}}, "counts"),
    ],
    ids=["list", "map"],
)
def test_what_is_at_fault_in_a_large_body_is_found_without_trying_each_part(
    document: object, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    parse = json_format.ParseDict

    def counted(part: dict[str, object], message: Message) -> Message:
        tried.append(part)
        return parse(part, message)

    monkeypatch.setattr(json_format, "ParseDict", counted)
    _refused(document, field)
    assert len(tried) < 30


def test_the_forms_of_the_specification_are_taken() -> None:
    document = {
        "i32": "1e3",
        "i64": "-9223372036854775808",
        "u64": "18446744073709551615",
        "fixed": 1.0,
        "f32": "-1.5E-3",
        "f64": "Infinity",
        "wInt": "60",
        "wFloat": "NaN",
        "kind": "ONE",
        "many": [1, "2", 3.0, "4.0"],
        "byNumber": {"-1": "x", "0": "y"},
        "counts": {"a": "7"},
        "at": "2026-01-01T08:00:00.5+08:00",
        "ttl": "-1.5s",
        "any": [1, "a", None],
    }
    message = _class()()
    merge_json(json.dumps(document), message)
    found = {field.name: getattr(message, field.name) for field, _ in message.ListFields()}
    assert (found["i32"], found["u64"], found["fixed"], found["kind"]) == (1000, 2**64 - 1, 1, 1)
    assert (list(found["many"]), dict(found["by_number"])) == ([1, 2, 3, 4], {-1: "x", 0: "y"})
    assert (found["at"].ToJsonString(), found["ttl"].ToJsonString()) == ("2026-01-01T00:00:00.500Z", "-1.500s")
    assert len(found) == len(document)
    assert len(_class()().DESCRIPTOR.fields) == len(document) + 2, "all but flag and w_bytes"


@pytest.mark.parametrize("value", ["1", 1, 1.0, "ONE"])
def test_a_value_of_an_enum_may_stand_as_its_number(value: object) -> None:
    message = _class()()
    merge_json(json.dumps({"kind": value}), message)
    assert str(message).strip() == "kind: ONE"


def _refused(document: object, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        merge_json(json.dumps(document), _class()())
    assert (caught.value.reason, caught.value.field) == ("malformed_message", field)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"i32": 1, "i32": 2}', "twice"),
        ('{"i32": NaN}', "NaN"),
        ('{"wFloat": 1e999}', "too large"),
        ('{"many": ' + "[" * 200 + "]" * 200 + "}", "deeper"),
        ("\ufeff{}", "in JSON"),
        ("{", "in JSON"),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_text(text: str, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        merge_json(text, _class()())
    assert caught.value.reason == "malformed_message"
    assert says in caught.value.message
