"""A message that breaks a rule of its descriptor is refused with the field's path; one that breaks none passes."""

import pytest
from google.protobuf.message import Message

from oa_base.refusal import Refusal
from oa_wire.rules import check_rules
from openagents.runtime.v1 import event_pb2, run_service_pb2, worker_service_pb2
from openagents.sync.v1 import topic_service_pb2

RUN = "run_01JD0000000000000000000000"


def _create(**spec: object) -> run_service_pb2.CreateRunRequest:
    full = {"adapter": "exec", "exec": event_pb2.ExecSpec(argv=["true"])} | spec
    return run_service_pb2.CreateRunRequest(idempotency_key="k", spec=event_pb2.RunSpec(**full))  # type: ignore[arg-type]


def _at_a_terminal(columns: int, rows: int) -> run_service_pb2.CreateRunRequest:
    size = event_pb2.Terminal(columns=columns, rows=rows)
    return _create(exec=event_pb2.ExecSpec(argv=["top"], terminal=size))


def _append(*events: event_pb2.EventBody) -> worker_service_pb2.AppendEventsRequest:
    return worker_service_pb2.AppendEventsRequest(run_id=RUN, idempotency_key="k", events=events)


def _text(stream: int) -> event_pb2.EventBody:
    return event_pb2.EventBody(text_delta=event_pb2.TextDelta(stream=stream))  # type: ignore[arg-type]


GOOD: list[Message] = [
    _create(),
    _create(title="ü" * 200, labels={"a": "b"}, exec=event_pb2.ExecSpec(argv=["x"] * 512)),
    *(_at_a_terminal(size, size) for size in (1, 1000)),
    _append(_text(1), _text(4)),
    topic_service_pb2.ReplayTopicRequest(topic="t", epoch="e", max_frames=5000),
    topic_service_pb2.WatchTopicsRequest(),
]
BAD: list[tuple[Message, str, str]] = [
    (run_service_pb2.CreateRunRequest(), "missing_field", "idempotency_key"),
    (run_service_pb2.CreateRunRequest(idempotency_key="k"), "missing_field", "spec"),
    (run_service_pb2.CreateRunRequest(idempotency_key="a b"), "invalid_value", "idempotency_key"),
    (run_service_pb2.CreateRunRequest(idempotency_key="k\n"), "invalid_value", "idempotency_key"),
    (run_service_pb2.CreateRunRequest(idempotency_key="k" * 129), "invalid_value", "idempotency_key"),
    (_create(adapter=""), "missing_field", "spec.adapter"),
    (_create(title="ü" * 201), "invalid_value", "spec.title"),
    (_create(title="a\0b"), "invalid_value", "spec.title"),
    (_create(exec=event_pb2.ExecSpec()), "missing_field", "spec.exec.argv"),
    (_create(exec=event_pb2.ExecSpec(argv=["x"] * 513)), "invalid_value", "spec.exec.argv"),
    (_create(exec=event_pb2.ExecSpec(argv=["a", "b", "c\0"])), "invalid_value", "spec.exec.argv[2]"),
    (_create(exec=event_pb2.ExecSpec(argv=["a"], environment={"A": "\0"})), "invalid_value", "spec.exec.environment"),
    *((_at_a_terminal(size, 24), "invalid_value", "spec.exec.terminal.columns") for size in (0, 1001)),
    *((_at_a_terminal(80, size), "invalid_value", "spec.exec.terminal.rows") for size in (0, 1001)),
    (_create(labels={str(n): "" for n in range(33)}), "invalid_value", "spec.labels"),
    (_append(), "missing_field", "events"),
    (_append(*[_text(1)] * 501), "invalid_value", "events"),
    (_append(_text(1), _text(0)), "invalid_enum", "events[1].text_delta.stream"),
    (_append(_text(99)), "invalid_enum", "events[0].text_delta.stream"),
    (topic_service_pb2.ReplayTopicRequest(topic="t", epoch="e", max_frames=5001), "invalid_value", "max_frames"),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: str(message.DESCRIPTOR.name))
def test_a_good_message_passes(message: Message) -> None:
    check_rules(message)


@pytest.mark.parametrize(("message", "reason", "field"), BAD, ids=[f"{field}-{why}" for _, why, field in BAD])
def test_a_bad_field_is_named(message: Message, reason: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_rules(message)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_the_value_is_never_echoed() -> None:
    with pytest.raises(Refusal) as caught:
        check_rules(run_service_pb2.CreateRunRequest(idempotency_key="s3cret word"))
    assert "s3cret" not in str(caught.value)
