"""Bodies of events <-> `EventBody`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from oa_base.refusal import Refusal
from oa_runlog import events
from oa_runlog.events import EventBody
from oa_runlog.wire.codex import checked_codex, codex_to_wire
from oa_runlog.wire.fields import EnumMap, json_text, need, parse, part
from oa_runlog.wire.finishes import attempt_failed_to_wire, checked_attempt_failed, checked_finish, finish_to_wire
from oa_runlog.wire.json_values import object_to_wire, optional_object, value_from_wire, value_to_wire
from oa_runlog.wire.requests import checked_answered, checked_expired, checked_opened, opened_to_wire, settled_to_wire
from oa_runlog.wire.specs import checked_spec, spec_to_wire
from oa_wire.rules import check_rules
from openagents.runtime.v1 import event_pb2

BodyMessage = event_pb2.EventBody
"""The type of the message, for callers that receive one and may not import generated types."""

FINGERPRINT_BYTES = 32

_STREAMS = EnumMap(events.TextStream, event_pb2.TextStream, "TEXT_STREAM_")
_ROLES = EnumMap(events.MessageRole, event_pb2.MessageRole, "MESSAGE_ROLE_")


# ------------------------------------------------------------------------------------------------- to wire


def _tool_result_to_wire(body: events.ToolResult) -> event_pb2.ToolResult:
    result = value_to_wire(body.result) if body.has_result else None
    return event_pb2.ToolResult(call_id=body.call_id, failed=body.failed, result=result)


def progress_to_wire(progress: events.ProgressReported) -> event_pb2.ProgressReported:
    """The message for a run's progress."""
    return event_pb2.ProgressReported(text=progress.text, done=progress.done, total=progress.total)


def body_to_wire(body: EventBody) -> event_pb2.EventBody:
    """The message for a body."""
    w = event_pb2
    match body:
        case events.TextDelta(stream, data):
            return w.EventBody(text_delta=w.TextDelta(stream=_STREAMS.to_wire(stream), data=data))
        case events.ToolCall(call_id, name, arguments):
            call = w.ToolCall(call_id=call_id, name=name, arguments=object_to_wire(arguments))
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
            return w.EventBody(codex_event=codex_to_wire(body))
        case events.Custom(kind, content):
            return w.EventBody(custom=w.Custom(type=kind, data=object_to_wire(content)))
        case events.RequestOpened():
            return w.EventBody(request_opened=opened_to_wire(body))
        case events.StepCompleted() | events.CheckpointSaved() | events.ProgressReported():
            return _place_to_wire(body)
        case events.Unknown():
            raise ValueError("what a later release has written is not written again: keep its bytes")
        case _:
            return _authority_body_to_wire(body)


def _place_to_wire(
    body: events.StepCompleted | events.CheckpointSaved | events.ProgressReported,
) -> event_pb2.EventBody:
    """The message for a body that records how far an agent has come."""
    w = event_pb2
    match body:
        case events.StepCompleted(ordinal, name, fingerprint, result, has_branches):
            step = w.StepCompleted(
                ordinal=ordinal, name=name, fingerprint=fingerprint, result_json=result, has_branches=has_branches
            )
            return w.EventBody(step_completed=step)
        case events.CheckpointSaved(number, state):
            return w.EventBody(checkpoint_saved=w.CheckpointSaved(number=number, state_json=state))
        case events.ProgressReported():
            return w.EventBody(progress_reported=progress_to_wire(body))


def _authority_body_to_wire(
    body: events.RunCreated
    | events.RunStarted
    | events.RunCancelRequested
    | events.RunFinished
    | events.ExecutorLost
    | events.AttemptFailed
    | events.InputReceived
    | events.RequestAnswered
    | events.RequestExpired
    | events.ChildStarted
    | events.ChildFinished,
) -> event_pb2.EventBody:
    w = event_pb2
    match body:
        case events.RunCreated(user_id, org_id, spec, parent):
            sent = spec_to_wire(spec)
            created = w.RunCreated(user_id=user_id, org_id=org_id, spec=sent, parent_run_id=parent)
            return w.EventBody(run_created=created)
        case events.ChildStarted(child_id, run_id, adapter, digest, has_branches):
            started = w.ChildStarted(
                child_id=child_id, run_id=run_id, adapter=adapter, input_sha256=digest, has_branches=has_branches
            )
            return w.EventBody(child_started=started)
        case events.ChildFinished(run_id, finish):
            return w.EventBody(child_finished=w.ChildFinished(run_id=run_id, finish=finish_to_wire(finish)))
        case events.RunStarted(worker_id, epoch, attempt):
            return w.EventBody(run_started=w.RunStarted(worker_id=worker_id, lease_epoch=epoch, attempt=attempt))
        case events.RunCancelRequested(requested_by, reason):
            return w.EventBody(run_cancel_requested=w.RunCancelRequested(requested_by=requested_by, reason=reason))
        case events.RunFinished():
            return w.EventBody(run_finished=finish_to_wire(body))
        case events.ExecutorLost(worker_id, epoch, attempt, requeued):
            lost = w.ExecutorLost(worker_id=worker_id, lease_epoch=epoch, attempt=attempt, requeued=requeued)
            return w.EventBody(executor_lost=lost)
        case events.AttemptFailed():
            return w.EventBody(attempt_failed=attempt_failed_to_wire(body))
        case events.InputReceived(sent_by, input_json):
            return w.EventBody(input_received=w.InputReceived(sent_by=sent_by, input_json=input_json))
        case events.RequestAnswered() | events.RequestExpired():
            return settled_to_wire(body)


def encode_body(body: EventBody) -> bytes:
    """The bytes of a body: those that its event contains and that fingerprints are made of."""
    return body_to_wire(body).SerializeToString(deterministic=True)


# ------------------------------------------------------------------------------------------------- from wire


def _run_created(m: event_pb2.RunCreated) -> events.RunCreated:
    need(m.HasField("spec"), "spec")
    user_id, org_id = need(m.user_id, "user_id"), need(m.org_id, "org_id")
    return events.RunCreated(user_id, org_id, checked_spec(m.spec, "spec."), m.parent_run_id)


def _run_started(m: event_pb2.RunStarted) -> events.RunStarted:
    epoch, attempt = need(m.lease_epoch, "lease_epoch"), need(m.attempt, "attempt")
    return events.RunStarted(need(m.worker_id, "worker_id"), epoch, attempt)


def _cancel_requested(m: event_pb2.RunCancelRequested) -> events.RunCancelRequested:
    return events.RunCancelRequested(need(m.requested_by, "requested_by"), m.reason)


def _executor_lost(m: event_pb2.ExecutorLost) -> events.ExecutorLost:
    epoch, attempt = need(m.lease_epoch, "lease_epoch"), need(m.attempt, "attempt")
    return events.ExecutorLost(need(m.worker_id, "worker_id"), epoch, attempt, m.requeued)


def _input_received(m: event_pb2.InputReceived) -> events.InputReceived:
    return events.InputReceived(need(m.sent_by, "sent_by"), json_text(m.input_json, "input_json"))


def _text_delta(m: event_pb2.TextDelta) -> events.TextDelta:
    return events.TextDelta(_STREAMS.from_wire(m.stream, "stream"), m.data)


def _tool_call(m: event_pb2.ToolCall) -> events.ToolCall:
    return events.ToolCall(m.call_id, m.name, optional_object(m, "arguments"))


def _tool_result(m: event_pb2.ToolResult) -> events.ToolResult:
    has_result = m.HasField("result")
    result = value_from_wire(m.result, "result") if has_result else None
    return events.ToolResult(m.call_id, m.failed, result, has_result)


def _message(m: event_pb2.Message) -> events.Message:
    return events.Message(_ROLES.from_wire(m.role, "role"), m.text)


def _verification(m: event_pb2.Verification) -> events.Verification:
    return events.Verification(m.name, m.passed, m.detail)


def _usage(m: event_pb2.Usage) -> events.Usage:
    return events.Usage(m.model, m.input_tokens, m.output_tokens, m.cached_input_tokens)


def _child_started(m: event_pb2.ChildStarted) -> events.ChildStarted:
    return events.ChildStarted(m.child_id, m.run_id, m.adapter, m.input_sha256, m.has_branches)


def _child_finished(m: event_pb2.ChildFinished) -> events.ChildFinished:
    need(m.HasField("finish"), "finish")
    return events.ChildFinished(need(m.run_id, "run_id"), part(m, "finish", checked_finish))


def _custom(m: event_pb2.Custom) -> events.Custom:
    return events.Custom(m.type, optional_object(m, "data"))


def _step_completed(m: event_pb2.StepCompleted) -> events.StepCompleted:
    if len(m.fingerprint) != FINGERPRINT_BYTES:
        message = f"a fingerprint has {FINGERPRINT_BYTES} bytes; send the SHA-256 of the arguments"
        raise Refusal("invalid_value", message, field="fingerprint")
    result = json_text(m.result_json, "result_json")
    return events.StepCompleted(m.ordinal, m.name, m.fingerprint, result, m.has_branches)


def _checkpoint_saved(m: event_pb2.CheckpointSaved) -> events.CheckpointSaved:
    return events.CheckpointSaved(m.number, json_text(m.state_json, "state_json"))


def progress_from_wire(m: event_pb2.ProgressReported) -> events.ProgressReported:
    """The progress in a message."""
    done = m.done if m.HasField("done") else None
    return events.ProgressReported(m.text, done, m.total if m.HasField("total") else None)


_BODIES: Mapping[str, Callable[[Any], EventBody]] = MappingProxyType(
    {
        "run_created": _run_created,
        "run_started": _run_started,
        "run_cancel_requested": _cancel_requested,
        "run_finished": checked_finish,
        "executor_lost": _executor_lost,
        "attempt_failed": checked_attempt_failed,
        "input_received": _input_received,
        "text_delta": _text_delta,
        "tool_call": _tool_call,
        "tool_result": _tool_result,
        "message": _message,
        "verification": _verification,
        "usage": _usage,
        "codex_event": checked_codex,
        "custom": _custom,
        "step_completed": _step_completed,
        "checkpoint_saved": _checkpoint_saved,
        "progress_reported": progress_from_wire,
        "request_opened": checked_opened,
        "request_answered": checked_answered,
        "request_expired": checked_expired,
        "child_started": _child_started,
        "child_finished": _child_finished,
    }
)


def body_from_wire(message: event_pb2.EventBody) -> EventBody:
    """The body in a message. Raises Refusal."""
    check_rules(message)
    return checked_body(message)


def received_body(message: BodyMessage) -> tuple[EventBody, bytes]:
    """The body in a message that has passed `check_rules`, with the bytes to be stored. Raises Refusal.

    Callers must first discard the fields that this version does not know (`DiscardUnknownFields`), because nothing here
    can tell whether they may be in the log. The bytes are then those of `encode_body`.
    """
    return checked_body(message), message.SerializeToString(deterministic=True)


def checked_body(message: BodyMessage) -> EventBody:
    """The body in a message that has passed `check_rules`. Raises Refusal."""
    kind = message.WhichOneof("kind")
    if kind is None:
        text = "the event holds none of the kinds that this version has; set one of them"
        raise Refusal("missing_payload", text, field="kind")
    return part(message, kind, _BODIES[kind])


def decode_body(data: bytes) -> EventBody:
    """The body in the bytes of `encode_body`. Raises Refusal."""
    return body_from_wire(parse(data, event_pb2.EventBody()))
