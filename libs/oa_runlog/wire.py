"""Plain values <-> bytes of openagents.runtime.v1. The only module here that knows the generated types.

Reading is total: it gives a value, or raises Refusal with `missing_field`, `invalid_value`, `invalid_enum`,
`missing_payload`, `malformed_message` or `unsupported_schema_version`, and the field's path. Writing is deterministic:
the same value gives the same bytes in every process.

An event's bytes are made by `encode_event`, once, by the authority. Everybody else keeps the bytes as they are.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from oa_errors import Refusal, check_rules
from oa_runlog import events
from oa_runlog.events import EventBody, Json, RunEvent
from oa_runlog.receipt import SignedReceipt
from oa_runlog.state import RunState, RunStatus
from oa_runlog.upcast import upcast
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2, receipt_pb2, run_pb2

M = TypeVar("M", bound=ProtoMessage)
E = TypeVar("E", bound=enum.StrEnum)
T = TypeVar("T")

_NS = 1_000_000_000
_MAX_SECONDS = 253_402_300_799
"""The end of the year 9999: the last time that a google.protobuf.Timestamp may hold."""
_EMPTY: Mapping[str, str] = MappingProxyType({})

# ------------------------------------------------------------------------------------------------- enums


class _EnumMap:
    """One enum in both worlds: wire name = prefix + our value in upper case."""

    def __init__(self, ours: type[E], wire: Any, prefix: str) -> None:
        self._to_wire: dict[enum.StrEnum, int] = {
            member: int(wire.Value(f"{prefix}{member.value.upper()}")) for member in ours
        }
        self._from_wire = {number: member for member, number in self._to_wire.items()}

    def to_wire(self, member: enum.StrEnum) -> Any:
        return self._to_wire[member]

    def from_wire(self, number: int, field: str) -> Any:
        try:
            return self._from_wire[number]
        except KeyError:
            raise Refusal("invalid_enum", f"{field} must be one of its named values", field=field) from None


_OUTCOMES = _EnumMap(events.Outcome, event_pb2.RunOutcome, "RUN_OUTCOME_")
_STREAMS = _EnumMap(events.TextStream, event_pb2.TextStream, "TEXT_STREAM_")
_ROLES = _EnumMap(events.MessageRole, event_pb2.MessageRole, "MESSAGE_ROLE_")
_STATUSES = _EnumMap(RunStatus, run_pb2.RunStatus, "RUN_STATUS_")
_TURNS = _EnumMap(events.TurnStatus, codex_pb2.TurnStatus, "TURN_STATUS_")
_CONTROLS = _EnumMap(events.ControlOutcome, codex_pb2.ControlOutcome, "CONTROL_OUTCOME_")

# ------------------------------------------------------------------------------------------------- JSON values


def _value_to_wire(value: Json) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Mapping():
            return struct_pb2.Value(struct_value=_object_to_wire(value))
        case Sequence():
            elements = [_value_to_wire(element) for element in value]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=elements))


def _object_to_wire(value: Mapping[str, Json] | None) -> struct_pb2.Struct | None:
    if value is None:
        return None
    return struct_pb2.Struct(fields={name: _value_to_wire(member) for name, member in value.items()})


def _value_from_wire(value: struct_pb2.Value, field: str) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "number_value":
            if not math.isfinite(value.number_value):
                raise Refusal("invalid_value", f"{field} holds a number that JSON does not have", field=field)
            return value.number_value
        case "string_value":
            return value.string_value
        case "struct_value":
            return _object_from_wire(value.struct_value, field)
        case "list_value":
            return [_value_from_wire(v, f"{field}[{n}]") for n, v in enumerate(value.list_value.values)]
        case _:
            raise Refusal("missing_payload", f"{field} holds a value of no kind", field=field)


def _object_from_wire(value: struct_pb2.Struct, field: str) -> dict[str, Json]:
    return {name: _value_from_wire(member, f"{field}.{name}") for name, member in sorted(value.fields.items())}


def _optional_object(message: Any, name: str) -> dict[str, Json] | None:
    return _object_from_wire(getattr(message, name), name) if message.HasField(name) else None


# ------------------------------------------------------------------------------------------------- spec and finish


def spec_to_wire(spec: events.RunSpec) -> event_pb2.RunSpec:
    """The message for a spec."""
    message = event_pb2.RunSpec(
        adapter=spec.adapter,
        title=spec.title,
        thread_id=spec.thread_id,
        labels=dict(spec.labels),
        retention_class=spec.retention_class,
    )
    match spec.input:
        case events.ExecSpec() as command:
            message.exec.argv.extend(command.argv)
            message.exec.working_directory = command.working_directory
            message.exec.environment.update(command.environment)
            message.exec.timeout_ms = command.timeout_ms
        case events.PromptSpec() as prompt:
            message.prompt.text = prompt.text
    return message


def spec_from_wire(message: event_pb2.RunSpec, *, path: str = "") -> events.RunSpec:
    """The spec in a message. Raises Refusal; `path` is what stands before its fields, for example "spec."."""
    _check(message, path)
    return _spec(message, path)


def _check(message: ProtoMessage, path: str) -> None:
    try:
        check_rules(message)
    except Refusal as refusal:
        raise (refusal.under(path.rstrip(".")) if path else refusal) from None


def _spec(message: event_pb2.RunSpec, path: str) -> events.RunSpec:
    match message.WhichOneof("input"):
        case "exec":
            command = message.exec
            what: events.ExecSpec | events.PromptSpec = events.ExecSpec(
                tuple(command.argv), command.working_directory, _frozen(command.environment), command.timeout_ms
            )
        case "prompt":
            what = events.PromptSpec(message.prompt.text)
        case _:
            raise Refusal(
                "missing_payload", "the spec says nothing to execute; set exec or prompt", field=f"{path}input"
            )
    labels = _frozen(message.labels)
    return events.RunSpec(message.adapter, what, message.title, message.thread_id, labels, message.retention_class)


def _frozen(entries: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(entries)) if entries else _EMPTY


def encode_spec(spec: events.RunSpec) -> bytes:
    """A spec's bytes, for fingerprints and for storing it."""
    return spec_to_wire(spec).SerializeToString(deterministic=True)


def decode_spec(data: bytes) -> events.RunSpec:
    """The spec in `encode_spec`'s bytes. Raises Refusal."""
    return spec_from_wire(_parse(data, event_pb2.RunSpec()))


def finish_to_wire(finish: events.RunFinished) -> event_pb2.RunFinished:
    """The message for a finish."""
    message = event_pb2.RunFinished(
        outcome=_OUTCOMES.to_wire(finish.outcome), reason=finish.reason, message=finish.message
    )
    if finish.exec is not None:
        measured = finish.exec
        message.exec.CopyFrom(
            event_pb2.ExecResult(
                exit_code=measured.exit_code,
                signal=measured.signal,
                duration_ms=measured.duration_ms,
                stdout_bytes=measured.stdout_bytes,
                stderr_bytes=measured.stderr_bytes,
            )
        )
    return message


def finish_from_wire(message: event_pb2.RunFinished) -> events.RunFinished:
    """The finish in a message. Raises Refusal."""
    check_rules(message)
    return _run_finished(message)


def _run_finished(message: event_pb2.RunFinished) -> events.RunFinished:
    measured = None
    if message.HasField("exec"):
        result = message.exec
        measured = events.ExecResult(
            exit_code=result.exit_code if result.HasField("exit_code") else None,
            signal=result.signal,
            duration_ms=result.duration_ms,
            stdout_bytes=result.stdout_bytes,
            stderr_bytes=result.stderr_bytes,
        )
    outcome = _OUTCOMES.from_wire(message.outcome, "outcome")
    return events.RunFinished(outcome, message.reason, message.message, measured)


def encode_finish(finish: events.RunFinished) -> bytes:
    """A finish's bytes, for storing it."""
    return finish_to_wire(finish).SerializeToString(deterministic=True)


def decode_finish(data: bytes) -> events.RunFinished:
    """The finish in `encode_finish`'s bytes. Raises Refusal."""
    return finish_from_wire(_parse(data, event_pb2.RunFinished()))


# ------------------------------------------------------------------------------------------------- bodies, to wire


def _codex_to_wire(body: events.CodexEvent) -> codex_pb2.CodexEvent:
    message = codex_pb2.CodexEvent(codex_thread_id=body.codex_thread_id)
    match body.kind:
        case events.TurnStatusChanged() as turn:
            status = _TURNS.to_wire(turn.status)
            changed = codex_pb2.TurnStatusChanged(turn_id=turn.turn_id, status=status, message=turn.message)
            message.turn.CopyFrom(changed)
        case events.CodexItem() as item:
            content = _object_to_wire(item.content)
            sent = codex_pb2.CodexItem(
                turn_id=item.turn_id, item_id=item.item_id, item_type=item.item_type, content=content
            )
            message.item.CopyFrom(sent)
        case events.ControlRequest() as asked:
            detail = _object_to_wire(asked.detail)
            request = codex_pb2.ControlRequest(request_id=asked.request_id, action=asked.action, detail=detail)
            message.control_request.CopyFrom(request)
        case events.ControlReceipt() as done:
            outcome = _CONTROLS.to_wire(done.outcome)
            receipt = codex_pb2.ControlReceipt(request_id=done.request_id, outcome=outcome, message=done.message)
            message.control_receipt.CopyFrom(receipt)
    return message


def _tool_result_to_wire(body: events.ToolResult) -> event_pb2.ToolResult:
    result = _value_to_wire(body.result) if body.has_result else None
    return event_pb2.ToolResult(call_id=body.call_id, failed=body.failed, result=result)


def body_to_wire(body: EventBody) -> event_pb2.EventBody:
    """The message for what happened."""
    w = event_pb2
    match body:
        case events.TextDelta(stream, data):
            return w.EventBody(text_delta=w.TextDelta(stream=_STREAMS.to_wire(stream), data=data))
        case events.ToolCall(call_id, name, arguments):
            call = w.ToolCall(call_id=call_id, name=name, arguments=_object_to_wire(arguments))
            return w.EventBody(tool_call=call)
        case events.ToolResult():
            return w.EventBody(tool_result=_tool_result_to_wire(body))
        case events.Message(role, text):
            return w.EventBody(message=w.Message(role=_ROLES.to_wire(role), text=text))
        case events.Verification(name, passed, detail):
            return w.EventBody(verification=w.Verification(name=name, passed=passed, detail=detail))
        case events.Usage(model, read, written, cached):
            usage = w.Usage(model=model, input_tokens=read, output_tokens=written, cached_input_tokens=cached)
            return w.EventBody(usage=usage)
        case events.CodexEvent():
            return w.EventBody(codex_event=_codex_to_wire(body))
        case events.Custom(kind, content):
            return w.EventBody(custom=w.Custom(type=kind, data=_object_to_wire(content)))
        case _:
            return _authority_body_to_wire(body)


def _authority_body_to_wire(
    body: events.RunCreated | events.RunStarted | events.RunCancelRequested | events.RunFinished | events.ExecutorLost,
) -> event_pb2.EventBody:
    w = event_pb2
    match body:
        case events.RunCreated(user_id, org_id, spec):
            return w.EventBody(run_created=w.RunCreated(user_id=user_id, org_id=org_id, spec=spec_to_wire(spec)))
        case events.RunStarted(worker_id, epoch, attempt):
            return w.EventBody(run_started=w.RunStarted(worker_id=worker_id, lease_epoch=epoch, attempt=attempt))
        case events.RunCancelRequested(requested_by, reason):
            return w.EventBody(run_cancel_requested=w.RunCancelRequested(requested_by=requested_by, reason=reason))
        case events.RunFinished():
            return w.EventBody(run_finished=finish_to_wire(body))
        case events.ExecutorLost(worker_id, epoch, attempt, requeued):
            lost = w.ExecutorLost(worker_id=worker_id, lease_epoch=epoch, attempt=attempt, requeued=requeued)
            return w.EventBody(executor_lost=lost)


def encode_body(body: EventBody) -> bytes:
    """The bytes of what happened, as they stand in an event and as fingerprints are made of."""
    return body_to_wire(body).SerializeToString(deterministic=True)


# ------------------------------------------------------------------------------------------------- bodies, from wire


def _need(value: Any, field: str) -> Any:
    if not value:
        raise Refusal("missing_field", f"{field} must be set", field=field)
    return value


def _run_created(m: event_pb2.RunCreated) -> events.RunCreated:
    _need(m.HasField("spec"), "spec")
    user_id, org_id = _need(m.user_id, "user_id"), _need(m.org_id, "org_id")
    return events.RunCreated(user_id, org_id, _spec(m.spec, "spec."))


def _run_started(m: event_pb2.RunStarted) -> events.RunStarted:
    epoch, attempt = _need(m.lease_epoch, "lease_epoch"), _need(m.attempt, "attempt")
    return events.RunStarted(_need(m.worker_id, "worker_id"), epoch, attempt)


def _cancel_requested(m: event_pb2.RunCancelRequested) -> events.RunCancelRequested:
    return events.RunCancelRequested(_need(m.requested_by, "requested_by"), m.reason)


def _executor_lost(m: event_pb2.ExecutorLost) -> events.ExecutorLost:
    epoch, attempt = _need(m.lease_epoch, "lease_epoch"), _need(m.attempt, "attempt")
    return events.ExecutorLost(_need(m.worker_id, "worker_id"), epoch, attempt, m.requeued)


def _text_delta(m: event_pb2.TextDelta) -> events.TextDelta:
    return events.TextDelta(_STREAMS.from_wire(m.stream, "stream"), m.data)


def _tool_call(m: event_pb2.ToolCall) -> events.ToolCall:
    return events.ToolCall(m.call_id, m.name, _optional_object(m, "arguments"))


def _tool_result(m: event_pb2.ToolResult) -> events.ToolResult:
    has_result = m.HasField("result")
    result = _value_from_wire(m.result, "result") if has_result else None
    return events.ToolResult(m.call_id, m.failed, result, has_result)


def _message(m: event_pb2.Message) -> events.Message:
    return events.Message(_ROLES.from_wire(m.role, "role"), m.text)


def _verification(m: event_pb2.Verification) -> events.Verification:
    return events.Verification(m.name, m.passed, m.detail)


def _usage(m: event_pb2.Usage) -> events.Usage:
    return events.Usage(m.model, m.input_tokens, m.output_tokens, m.cached_input_tokens)


def _custom(m: event_pb2.Custom) -> events.Custom:
    return events.Custom(m.type, _optional_object(m, "data"))


_CODEX_KINDS: Mapping[str, Callable[[Any], events.CodexKind]] = MappingProxyType(
    {
        "turn": lambda m: events.TurnStatusChanged(m.turn_id, _TURNS.from_wire(m.status, "status"), m.message),
        "item": lambda m: events.CodexItem(m.item_type, m.turn_id, m.item_id, _optional_object(m, "content")),
        "control_request": lambda m: events.ControlRequest(m.request_id, m.action, _optional_object(m, "detail")),
        "control_receipt": lambda m: events.ControlReceipt(
            m.request_id, _CONTROLS.from_wire(m.outcome, "outcome"), m.message
        ),
    }
)


def _codex_event(m: codex_pb2.CodexEvent) -> events.CodexEvent:
    kind = m.WhichOneof("kind")
    if kind is None:
        raise Refusal("missing_payload", "the Codex event holds none of its kinds", field="kind")
    return events.CodexEvent(_part(m, kind, _CODEX_KINDS[kind]), m.codex_thread_id)


def _part(message: Any, name: str, read: Callable[[Any], T]) -> T:
    """A field that is a message, read; what is refused in it is named as the outer message's."""
    try:
        return read(getattr(message, name))
    except Refusal as refusal:
        raise refusal.under(name) from None


_BODIES: Mapping[str, Callable[[Any], EventBody]] = MappingProxyType(
    {
        "run_created": _run_created,
        "run_started": _run_started,
        "run_cancel_requested": _cancel_requested,
        "run_finished": _run_finished,
        "executor_lost": _executor_lost,
        "text_delta": _text_delta,
        "tool_call": _tool_call,
        "tool_result": _tool_result,
        "message": _message,
        "verification": _verification,
        "usage": _usage,
        "codex_event": _codex_event,
        "custom": _custom,
    }
)


def body_from_wire(message: event_pb2.EventBody) -> EventBody:
    """What happened, from its message. Raises Refusal."""
    check_rules(message)
    return checked_body(message)


BodyMessage = event_pb2.EventBody


def received_body(message: BodyMessage) -> tuple[EventBody, bytes]:
    """What happened, with the bytes that it is stored in, from a message that `check_rules` let pass. Raises Refusal.

    What the message holds beyond this version is to be discarded before (`DiscardUnknownFields`): nobody here can say
    whether it may stand in the log. Then the bytes are those of `encode_body`.
    """
    return checked_body(message), message.SerializeToString(deterministic=True)


def checked_body(message: BodyMessage) -> EventBody:
    """What happened, from a message that `check_rules` let pass. Raises Refusal."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise Refusal("missing_payload", "the event holds none of the kinds that this version has", field="kind")
    return _part(message, kind, _BODIES[kind])


def decode_body(data: bytes) -> EventBody:
    """What happened, from `encode_body`'s bytes. Raises Refusal."""
    return body_from_wire(_parse(data, event_pb2.EventBody()))


# ------------------------------------------------------------------------------------------------- events

_SEQ_TAG = bytes([event_pb2.RunEvent.SEQ_FIELD_NUMBER << 3])
_BODY_TAG = bytes([event_pb2.RunEvent.BODY_FIELD_NUMBER << 3 | 2])


def encode_event(run_id: str, seq: int, recorded_ns: int, lease_epoch: int, body: bytes) -> bytes:
    """The bytes of an event around its body's bytes (`encode_body`)."""
    return EventEncoder(run_id, recorded_ns, lease_epoch).encode_all(seq, [body])[0]


class EventEncoder:
    """Makes the bytes of events that are recorded together: they differ in their seq and body only.

    Protobuf writes fields in the order of their numbers: the run, the seq, what the events have in common, the body.
    So the parts are joined rather than parsed and written again.
    """

    def __init__(self, run_id: str, recorded_ns: int, lease_epoch: int) -> None:
        seconds, nanos = divmod(recorded_ns, _NS)
        common = event_pb2.RunEvent(lease_epoch=lease_epoch, schema_version=events.SCHEMA_VERSION)
        common.recorded_time.seconds = seconds
        common.recorded_time.nanos = nanos
        self._before_seq = event_pb2.RunEvent(run_id=run_id).SerializeToString() + _SEQ_TAG
        self._before_body = common.SerializeToString(deterministic=True) + _BODY_TAG

    def encode_all(self, first_seq: int, bodies: Iterable[bytes]) -> list[bytes]:
        """The bytes of consecutive events, the first with this seq (above 0)."""
        before_seq, before_body, join = self._before_seq, self._before_body, b"".join
        return [
            join((before_seq, _varint(seq), before_body, _varint(len(body)), body))
            for seq, body in enumerate(bodies, first_seq)
        ]


@lru_cache(maxsize=16_384)  # runs have the same seqs, and events often the same size
def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def decode_event(data: bytes) -> RunEvent:
    """The event in stored bytes. Raises Refusal."""
    return event_from_wire(_parse(data, event_pb2.RunEvent()))


def event_from_wire(message: event_pb2.RunEvent) -> RunEvent:
    """The event in a message; one of an older schema is upcast first. Raises Refusal."""
    message = upcast(message)
    check_rules(message)
    _need(message.HasField("recorded_time"), "recorded_time")
    _need(message.HasField("body"), "body")
    return RunEvent(
        run_id=_need(message.run_id, "run_id"),
        seq=_need(message.seq, "seq"),
        recorded_ns=_ns(message.recorded_time, "recorded_time"),
        lease_epoch=message.lease_epoch,
        body=_part(message, "body", checked_body),
    )


def _ns(time: Any, field: str) -> int:
    if not 0 <= time.nanos < _NS or not 0 <= time.seconds <= _MAX_SECONDS:
        raise Refusal("invalid_value", f"{field} is not a time since 1970", field=field)
    return int(time.seconds) * _NS + int(time.nanos)


def _parse(data: bytes, empty: M) -> M:
    try:
        empty.ParseFromString(data)
    except DecodeError:
        raise Refusal("malformed_message", f"the bytes are not a {empty.DESCRIPTOR.name}") from None
    return empty


# ------------------------------------------------------------------------------------------------- runs and receipts


def run_to_wire(state: RunState, spec: events.RunSpec, events_topic: str) -> run_pb2.Run:
    """The message for a run as the authority knows it."""
    run = run_pb2.Run(
        run_id=state.run_id,
        user_id=state.user_id,
        org_id=state.org_id,
        spec=spec_to_wire(spec),
        status=_STATUSES.to_wire(state.status),
        latest_seq=state.latest_seq,
        chain_head=state.chain_head,
        lease_epoch=state.lease_epoch,
        worker_id=state.holder,
        attempt=state.attempt,
        events_topic=events_topic,
    )
    run.create_time.FromNanoseconds(state.create_ns)
    if state.finish_ns is not None:
        run.finish_time.FromNanoseconds(state.finish_ns)
    if state.finish is not None:
        run.finish.CopyFrom(finish_to_wire(state.finish))
    return run


def status_from_wire(number: int) -> RunStatus:
    """A run's status from its number on the wire. Raises Refusal `invalid_enum`."""
    status: RunStatus = _STATUSES.from_wire(number, "status")
    return status


def receipt_to_wire(receipt: SignedReceipt) -> receipt_pb2.Receipt:
    """The message for a receipt."""
    return receipt_pb2.Receipt(
        run_id=receipt.run_id,
        canonical_json=receipt.canonical_json,
        signature=receipt.signature,
        key_id=receipt.key_id,
    )


def receipt_from_wire(message: receipt_pb2.Receipt) -> SignedReceipt:
    """The receipt in a message. Raises Refusal; whether it proves anything is for `receipt.verify`."""
    for field in ("run_id", "canonical_json", "signature", "key_id"):
        _need(getattr(message, field), field)
    return SignedReceipt(message.run_id, message.canonical_json, message.signature, message.key_id)
