"""The queue policy of a run <-> `QueuePolicy`."""

from __future__ import annotations

from oa_runlog import events
from oa_runlog.wire.fields import parse
from openagents.runtime.v1 import event_pb2


def queue_to_wire(policy: events.QueuePolicy) -> event_pb2.QueuePolicy:
    """The message for a policy."""
    message = event_pb2.QueuePolicy(
        priority=policy.priority,
        start_timeout_ms=policy.start_timeout_ms,
        run_timeout_ms=policy.run_timeout_ms,
    )
    if policy.not_before_ns is not None:
        message.not_before_time.FromNanoseconds(policy.not_before_ns)
    if policy.concurrency is not None:
        message.concurrency.key = policy.concurrency.key
        message.concurrency.limit = policy.concurrency.limit
    if policy.retry is not None:
        message.retry.max_failures = policy.retry.max_failures
        message.retry.initial_delay_ms = policy.retry.initial_delay_ms
        message.retry.max_delay_ms = policy.retry.max_delay_ms
        message.retry.reasons.extend(policy.retry.reasons)
    return message


def checked_queue(message: event_pb2.QueuePolicy) -> events.QueuePolicy:
    """The policy in a message that has passed `check_rules`."""
    concurrency, retry = message.concurrency, message.retry
    return events.QueuePolicy(
        message.priority,
        message.not_before_time.ToNanoseconds() if message.HasField("not_before_time") else None,
        message.start_timeout_ms,
        message.run_timeout_ms,
        events.Concurrency(concurrency.key, concurrency.limit) if message.HasField("concurrency") else None,
        _retry(retry) if message.HasField("retry") else None,
    )


def _retry(message: event_pb2.RetryPolicy) -> events.RetryPolicy:
    reasons = tuple(message.reasons)
    return events.RetryPolicy(message.max_failures, message.initial_delay_ms, message.max_delay_ms, reasons)


def encode_queue(policy: events.QueuePolicy) -> bytes:
    """The bytes of a policy, for storing it."""
    return queue_to_wire(policy).SerializeToString(deterministic=True)


def decode_queue(data: bytes) -> events.QueuePolicy:
    """The policy in the bytes of `encode_queue`. Raises Refusal malformed_message."""
    return checked_queue(parse(data, event_pb2.QueuePolicy()))
