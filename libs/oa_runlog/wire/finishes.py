"""The finish of a run, and of one attempt of it <-> `RunFinished`, `AttemptFailed`."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_runlog import events
from oa_runlog.wire.fields import EnumMap, json_text, need, parse, part
from oa_wire.rules import check_rules
from openagents.runtime.v1 import event_pb2

_OUTCOMES = EnumMap(events.Outcome, event_pb2.RunOutcome, "RUN_OUTCOME_")


def finish_to_wire(finish: events.RunFinished) -> event_pb2.RunFinished:
    """The message for a finish."""
    message = event_pb2.RunFinished(
        outcome=_OUTCOMES.to_wire(finish.outcome),
        reason=finish.reason,
        message=finish.message,
        result_json=finish.result_json,
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
    return checked_finish(message)


def checked_finish(message: event_pb2.RunFinished) -> events.RunFinished:
    """The finish in a message that has passed `check_rules`. Raises Refusal."""
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
    return events.RunFinished(outcome, message.reason, message.message, measured, _result(message, outcome))


def _result(message: event_pb2.RunFinished, outcome: events.Outcome) -> str:
    if not message.result_json:
        return ""
    if outcome is not events.Outcome.SUCCEEDED:
        text = f"a run that is {outcome} has no result; leave it out"
        raise Refusal("invalid_value", text, field="result_json")
    return json_text(message.result_json, "result_json")


def attempt_failed_to_wire(failed: events.AttemptFailed) -> event_pb2.AttemptFailed:
    """The message for a failed attempt."""
    message = event_pb2.AttemptFailed(
        worker_id=failed.worker_id,
        lease_epoch=failed.lease_epoch,
        attempt=failed.attempt,
        failure=finish_to_wire(failed.failure),
    )
    message.retry_time.FromNanoseconds(failed.retry_ns)
    return message


def checked_attempt_failed(message: event_pb2.AttemptFailed) -> events.AttemptFailed:
    """The failed attempt in a message that has passed `check_rules`. Raises Refusal."""
    worker_id, epoch = need(message.worker_id, "worker_id"), need(message.lease_epoch, "lease_epoch")
    attempt = need(message.attempt, "attempt")
    need(message.HasField("failure"), "failure")
    need(message.HasField("retry_time"), "retry_time")
    failure = part(message, "failure", checked_finish)
    if failure.outcome is not events.Outcome.FAILED:
        text = "an attempt that is tried again has failed; give that outcome"
        raise Refusal("invalid_value", text, field="failure.outcome")
    return events.AttemptFailed(worker_id, epoch, attempt, failure, message.retry_time.ToNanoseconds())


def encode_finish(finish: events.RunFinished) -> bytes:
    """The bytes of a finish, for storing it."""
    return finish_to_wire(finish).SerializeToString(deterministic=True)


def decode_finish(data: bytes) -> events.RunFinished:
    """The finish in the bytes of `encode_finish`. Raises Refusal."""
    return finish_from_wire(parse(data, event_pb2.RunFinished()))
