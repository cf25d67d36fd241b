"""Every value survives the wire; every message that breaks a rule is refused with its field; the bytes are fixed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog import events as ev
from oa_runlog import wire
from oa_runlog.tests import values
from oa_runlog.wire.json_values import value_from_wire
from openagents.common.v1 import options_pb2
from openagents.runtime.v1 import event_pb2


@given(values.bodies)
def test_every_body_survives_the_round_trip(body: ev.EventBody) -> None:
    assert wire.decode_body(wire.encode_body(body)) == body


@given(values.specs)
def test_every_spec_survives_the_round_trip(spec: ev.RunSpec) -> None:
    assert wire.decode_spec(wire.encode_spec(spec)) == spec


@given(values.finishes)
def test_every_finish_survives_the_round_trip(finish: ev.RunFinished) -> None:
    assert wire.decode_finish(wire.encode_finish(finish)) == finish


@given(values.bodies, values.positive, values.times_ns, values.uint64)
def test_every_event_survives_and_has_the_bytes_that_protobuf_would_give_it(
    body: ev.EventBody, seq: int, recorded_ns: int, epoch: int
) -> None:
    data = wire.encode_event(values.RUN_ID, seq, recorded_ns, epoch, wire.encode_body(body))
    assert wire.decode_event(data) == ev.RunEvent(values.RUN_ID, seq, recorded_ns, epoch, body)
    message = event_pb2.RunEvent.FromString(data)
    assert message.SerializeToString(deterministic=True) == data


@given(st.dictionaries(values.text(), values.json_values, min_size=2, max_size=5))
def test_the_order_of_members_does_not_change_the_bytes(members: dict[str, ev.Json]) -> None:
    turned = dict(reversed(members.items()))
    assert wire.encode_body(ev.Custom("a.b", members)) == wire.encode_body(ev.Custom("a.b", turned))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_give_a_value_or_a_refusal(data: bytes) -> None:
    for decode in (wire.decode_event, wire.decode_body, wire.decode_spec, wire.decode_finish):
        with suppress(Refusal):
            decode(data)


# ------------------------------------------------------------------------------------------------- mutations

Spoiler = Callable[[Message], bool]
"""Breaks a message; False when there was nothing to break."""
SPEC = ev.RunSpec(
    "exec", ev.ExecSpec(("true",), "/", {"A": "b"}, 1, True, ev.Terminal()), "title", "thread", {"a": "b"}
)
EXAMPLES: tuple[ev.EventBody, ...] = (
    ev.RunCreated("usr_1", "org_1", SPEC),
    ev.RunCreated("usr_1", "org_1", ev.RunSpec("codex", ev.PromptSpec("do it"))),
    ev.RunCreated("usr_1", "org_1", ev.RunSpec("support", ev.AgentSpec('{"question":"why"}'))),
    ev.RunStarted("wrk_1", 1, 1),
    ev.RunCancelRequested("usr_1", "why"),
    ev.RunFinished(ev.Outcome.FAILED, "timeout", "too long", ev.ExecResult(1, 0, 2, 3, 4)),
    ev.RunFinished(ev.Outcome.SUCCEEDED, result_json='{"text":"so"}'),
    ev.ExecutorLost("wrk_1", 1, 1, requeued=True),
    ev.TextDelta(ev.TextStream.STDERR, b"x"),
    ev.ToolCall("c", "name", {"a": 1.0}),
    ev.ToolResult("c", True, [None, {"x": "y"}], has_result=True),
    ev.Message(ev.MessageRole.USER, "hi"),
    ev.Verification("tests", True, "ok"),
    ev.Usage("m", 1, 2, 3),
    ev.CodexEvent(ev.TurnStatusChanged("t", ev.TurnStatus.COMPLETED, "m"), "th"),
    ev.CodexEvent(ev.CodexItem("agentMessage", "t", "i", {"a": "b"})),
    ev.CodexEvent(ev.ControlRequest("r", "approve", {"a": True})),
    ev.CodexEvent(ev.ControlReceipt("r", ev.ControlOutcome.DECLINED, "no")),
    ev.Custom("acme.progress", {"done": 0.5}),
)
# What only the authority writes has no rules in the contract: nobody else may send it. Reading a log still needs them.
ALSO_NEEDED = {
    "RunCreated": {"user_id", "org_id", "spec"},
    "RunStarted": {"worker_id", "lease_epoch", "attempt"},
    "RunCancelRequested": {"requested_by"},
    "ExecutorLost": {"worker_id", "lease_epoch", "attempt"},
}


def _messages(message: Message, path: str = "") -> list[tuple[str, Message]]:
    """`message` and every message set in it, with their paths; without google's own."""
    found = [(path, message)]
    for field, value in message.ListFields():
        if field.message_type is not None and not _is_foreign(field.message_type):
            found += _messages(value, f"{path}{field.name}.")
    return found


def _is_foreign(descriptor: Descriptor) -> bool:
    return descriptor.full_name.startswith("google.") or descriptor.GetOptions().map_entry


def _mutations() -> list[tuple[str, event_pb2.EventBody, str, str]]:
    """Every way to break a rule of every example: a name, the message, the reason, the field."""
    made = []
    for number, example in enumerate(EXAMPLES):
        for path, part in _messages(wire.body_to_wire(example)):
            for field in part.DESCRIPTOR.fields:
                for reason, spoil in _spoilers(field):
                    broken = wire.body_to_wire(example)
                    target = dict(_messages(broken))[path]
                    if spoil(target):
                        name = f"{number}-{path}{field.name}-{reason}"
                        made.append((name, broken, reason, f"{path}{field.name}"))
    return made


def _spoilers(field: Any) -> list[tuple[str, Spoiler]]:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    needed = rules.required or rules.min_items or field.name in ALSO_NEEDED.get(field.containing_type.name, ())
    found: list[tuple[str, Spoiler]] = []
    if field.enum_type is not None:
        found.append(("invalid_enum", _setter(field, 99)))
        if rules.required:
            found.append(("invalid_enum", _setter(field, 0)))
    elif needed:
        found.append(("missing_field", _clearer(field)))
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
        found.append(("invalid_value", _setter(field, "a\0b")))
        if rules.max_length:
            found.append(("invalid_value", _setter(field, "a" * (rules.max_length + 1))))
        if rules.pattern:
            found.append(("invalid_value", _setter(field, "A B")))
    return found


def _setter(field: Any, value: object) -> Spoiler:
    def spoil(message: Message) -> bool:
        # Setting an absent member of a oneof would make another example of it.
        if field.containing_oneof is not None and not message.HasField(field.name):
            return False
        setattr(message, field.name, value)
        return True

    return spoil


def _clearer(field: Any) -> Spoiler:
    def spoil(message: Message) -> bool:
        message.ClearField(field.name)
        return True

    return spoil


MUTATIONS = _mutations()


def test_there_are_mutations_of_every_kind() -> None:
    assert len(MUTATIONS) > 80
    assert {reason for _, _, reason, _ in MUTATIONS} == {"missing_field", "invalid_enum", "invalid_value"}


@pytest.mark.parametrize(("message", "reason", "field"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_a_broken_message_is_refused_with_its_field(message: event_pb2.EventBody, reason: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.body_from_wire(message)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def _event(**changes: object) -> event_pb2.RunEvent:
    body = wire.encode_body(ev.Message(ev.MessageRole.USER, "hi"))
    message = event_pb2.RunEvent.FromString(wire.encode_event(values.RUN_ID, 1, 10**18, 0, body))
    for name, value in changes.items():
        if value is None:
            message.ClearField(name)  # type: ignore[arg-type]
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"run_id": None}, "missing_field", "run_id"),
        ({"seq": None}, "missing_field", "seq"),
        ({"recorded_time": None}, "missing_field", "recorded_time"),
        ({"body": None}, "missing_field", "body"),
        ({"schema_version": 99}, "unsupported_schema_version", "schema_version"),
    ],
    ids=str,
)
def test_a_broken_event_is_refused_with_its_field(changes: dict[str, object], reason: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        wire.event_from_wire(_event(**changes))
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (1, -1), (1, 10**9)])
def test_an_event_is_not_recorded_at_an_impossible_time(seconds: int, nanos: int) -> None:
    message = _event()
    message.recorded_time.seconds, message.recorded_time.nanos = seconds, nanos
    with pytest.raises(Refusal) as caught:
        wire.event_from_wire(message)
    assert (caught.value.reason, caught.value.field) == ("invalid_value", "recorded_time")


def test_what_holds_no_kind_is_missing_its_payload() -> None:
    empty_codex = event_pb2.EventBody()
    empty_codex.codex_event.SetInParent()
    no_input = event_pb2.EventBody()
    no_input.run_created.user_id = no_input.run_created.org_id = "x"
    no_input.run_created.spec.adapter = "exec"
    nothing = event_pb2.EventBody()
    no_value = event_pb2.EventBody()
    no_value.tool_result.call_id = "c"
    no_value.tool_result.result.SetInParent()
    cases = {
        "kind": nothing,
        "codex_event.kind": empty_codex,
        "run_created.spec.input": no_input,
        "tool_result.result": no_value,
    }
    for field, message in cases.items():
        with pytest.raises(Refusal) as caught:
            wire.body_from_wire(message)
        assert (caught.value.reason, caught.value.field) == ("missing_payload", field)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    message = event_pb2.EventBody()
    message.custom.type = "a.b"
    message.custom.data.fields["deep"].list_value.values.add().number_value = number
    with pytest.raises(Refusal) as caught:
        wire.body_from_wire(message)
    assert (caught.value.reason, caught.value.field) == ("invalid_value", "custom.data.deep[0]")


@given(values.work_bodies)
def test_a_received_body_is_stored_as_we_would_write_it(body: ev.EventBody) -> None:
    message = wire.body_to_wire(body)
    unknown = b"\x9a\x3f\x03abc"  # field 1011: of a newer version
    received = event_pb2.EventBody.FromString(message.SerializeToString() + unknown)
    received.DiscardUnknownFields()
    assert wire.received_body(received) == (body, wire.encode_body(body))


# ------------------------------------------------------------------------------------------------- JSON texts


@pytest.mark.parametrize(
    "text", ["", " ", "{", "nothing", '{"a":1,"a":2}', "NaN", "1e999", "[1] [2]", "[" * 102 + "]" * 102, "'a'"]
)
def test_a_text_that_is_no_json_with_one_meaning_is_neither_input_nor_result(text: str) -> None:
    spec = event_pb2.RunSpec(adapter="support", agent=event_pb2.AgentSpec(input_json=text))
    with pytest.raises(Refusal) as refused:
        wire.spec_from_wire(spec, path="spec.")
    assert refused.value.field == "spec.agent.input_json"
    assert refused.value.reason == ("invalid_value" if text else "missing_field")
    if text:
        finish = event_pb2.RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED, result_json=text)
        with pytest.raises(Refusal, match="result_json") as refused:
            wire.finish_from_wire(finish)
        assert (refused.value.reason, refused.value.field) == ("invalid_value", "result_json")


@pytest.mark.parametrize("outcome", [event_pb2.RUN_OUTCOME_FAILED, event_pb2.RUN_OUTCOME_CANCELED])
def test_only_a_run_that_succeeded_has_a_result(outcome: event_pb2.RunOutcome.ValueType) -> None:
    with pytest.raises(Refusal) as refused:
        wire.finish_from_wire(event_pb2.RunFinished(outcome=outcome, result_json="1"))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "result_json")


@pytest.mark.parametrize(
    ("command", "reason", "field"),
    [
        (event_pb2.ExecSpec(argv=["", "a"]), "missing_field", "spec.exec.argv[0]"),
        (event_pb2.ExecSpec(argv=["a"], environment={"": "x"}), "invalid_value", "spec.exec.environment"),
        (event_pb2.ExecSpec(argv=["a"], environment={"A": "x", "B=C": "x"}), "invalid_value", "spec.exec.environment"),
        (event_pb2.ExecSpec(argv=["a"], environment={"A\0": "x"}), "invalid_value", "spec.exec.environment"),
    ],
)
def test_a_command_that_nothing_can_start_is_refused_to_the_caller(
    command: event_pb2.ExecSpec, reason: str, field: str
) -> None:
    with pytest.raises(Refusal) as refused:
        wire.asked_spec_from_wire(event_pb2.RunSpec(adapter="exec", exec=command), path="spec.")
    assert (refused.value.reason, refused.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"\\ud800"', "half a character"),
        ('{"\\uDFFF": 1}', "half a character"),
        ('{"a": 1, "a": 2}', "twice"),
        ("NaN", "NaN"),
        ("[" * 200 + "]" * 200, "deeper"),
        ("{", "one JSON text"),
    ],
)
def test_an_input_that_readers_would_not_read_alike_is_refused_to_the_caller(text: str, said: str) -> None:
    spec = event_pb2.RunSpec(adapter="a", agent=event_pb2.AgentSpec(input_json=text))
    with pytest.raises(Refusal, match=said) as refused:
        wire.asked_spec_from_wire(spec, path="spec.")
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "spec.agent.input_json")


def test_whole_characters_may_be_written_as_pairs_and_as_text_about_halves() -> None:
    for text in ('"\\ud83d\\ude00"', '"\\\\ud800"'):
        spec = event_pb2.RunSpec(adapter="a", agent=event_pb2.AgentSpec(input_json=text))
        assert wire.asked_spec_from_wire(spec).input == ev.AgentSpec(text)


def test_half_characters_that_an_earlier_release_took_can_be_read_from_its_log() -> None:
    spec = ev.RunSpec("a", ev.AgentSpec('"\\ud800"'))
    created = wire.encode_body(ev.RunCreated(values.USER_ID, values.ORG_ID, spec))
    event = wire.decode_event(wire.encode_event(values.RUN_ID, 1, 1, 0, created))
    assert event.body == ev.RunCreated(values.USER_ID, values.ORG_ID, spec)


def test_a_command_may_have_empty_arguments_and_empty_variables() -> None:
    command = event_pb2.ExecSpec(argv=["a", ""], environment={"A": "", "b c": "=", "é": "x"})
    asked = wire.asked_spec_from_wire(event_pb2.RunSpec(adapter="exec", exec=command))
    assert asked.input == ev.ExecSpec(("a", ""), environment={"A": "", "b c": "=", "é": "x"})


def test_a_command_that_an_earlier_release_took_can_be_read_from_its_log() -> None:
    spec = ev.RunSpec("exec", ev.ExecSpec(("",), environment={"": "x", "A=B": "x"}))
    created = wire.encode_body(ev.RunCreated(values.USER_ID, values.ORG_ID, spec))
    event = wire.decode_event(wire.encode_event(values.RUN_ID, 1, 1, 0, created))
    assert event.body == ev.RunCreated(values.USER_ID, values.ORG_ID, spec)
    assert wire.decode_spec(wire.encode_spec(spec)) == spec


class _Counted(str):
    """A path that counts how often a longer one is made of it."""

    used = 0

    def __format__(self, spec: str) -> str:
        type(self).used += 1
        return super().__format__(spec)


def test_a_large_value_needs_no_path_for_each_of_its_parts() -> None:
    value = struct_pb2.Value()
    document = {"a": [{"b": [True] * 10}] * 100}
    json_format.ParseDict(document, value)
    assert value_from_wire(value, _Counted("result")) == document
    assert _Counted.used == 0


def test_what_is_at_fault_in_a_value_is_named_by_its_path() -> None:
    value = struct_pb2.Value()
    json_format.ParseDict({"a": [1, {"b": [[], "x"]}]}, value)
    value.struct_value.fields["a"].list_value.values[1].struct_value.fields["b"].list_value.values[0].ClearField("kind")
    with pytest.raises(Refusal) as caught:
        value_from_wire(value, "result")
    assert (caught.value.reason, caught.value.field) == ("missing_payload", "result.a[1].b[0]")
