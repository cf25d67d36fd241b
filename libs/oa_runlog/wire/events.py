"""Events <-> `RunEvent`.

The authority makes an event's bytes once, with `encode_event` or `EventEncoder`. Everybody else keeps the bytes as they
are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from oa_base.clock import LAST_NS, SECOND_NS
from oa_base.refusal import Refusal
from oa_runlog.events import SCHEMA_VERSION, RunEvent, Unknown
from oa_runlog.wire.bodies import checked_body
from oa_runlog.wire.fields import need, parse, part
from oa_runlog.wire.upcast import upcast
from oa_wire.rules import check_rules
from openagents.runtime.v1 import event_pb2

_MAX_SECONDS = LAST_NS // SECOND_NS
"""The last time that a google.protobuf.Timestamp may hold."""

_SEQ_TAG = bytes([event_pb2.RunEvent.SEQ_FIELD_NUMBER << 3])
_BODY_TAG = bytes([event_pb2.RunEvent.BODY_FIELD_NUMBER << 3 | 2])


def encode_event(run_id: str, seq: int, recorded_ns: int, lease_epoch: int, body: bytes) -> bytes:
    """The bytes of an event around its body's bytes (`encode_body`)."""
    return EventEncoder(run_id, recorded_ns, lease_epoch).encode_all(seq, [body])[0]


class EventEncoder:
    """Makes the bytes of events that are recorded together: they differ only in seq and body.

    Protobuf writes fields in the order of their numbers: the run, the seq, the fields that the events have in common,
    the body. So the parts are joined rather than parsed and written again.
    """

    def __init__(self, run_id: str, recorded_ns: int, lease_epoch: int) -> None:
        seconds, nanos = divmod(recorded_ns, SECOND_NS)
        common = event_pb2.RunEvent(lease_epoch=lease_epoch, schema_version=SCHEMA_VERSION)
        common.recorded_time.seconds = seconds
        common.recorded_time.nanos = nanos
        self._before_seq = event_pb2.RunEvent(run_id=run_id).SerializeToString() + _SEQ_TAG
        self._before_body = common.SerializeToString(deterministic=True) + _BODY_TAG

    def encode_all(self, first_seq: int, bodies: Iterable[bytes]) -> list[bytes]:
        """The bytes of consecutive events; the first one's seq is `first_seq`, above 0."""
        before_seq, before_body, join = self._before_seq, self._before_body, b"".join
        return [
            join((before_seq, _varint(seq), before_body, _varint(len(body)), body))
            for seq, body in enumerate(bodies, first_seq)
        ]


@lru_cache(maxsize=16_384)  # runs have the same seqs, and events often have the same size
def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def decode_event(data: bytes) -> RunEvent:
    """The event in stored bytes. Raises Refusal."""
    return event_from_wire(parse(data, event_pb2.RunEvent()))


def event_from_wire(message: event_pb2.RunEvent) -> RunEvent:
    """The event in a message; one of an older schema is upcast first. Raises Refusal."""
    message = upcast(message)
    check_rules(message)
    need(message.HasField("recorded_time"), "recorded_time")
    need(message.HasField("body"), "body")
    return RunEvent(
        run_id=need(message.run_id, "run_id"),
        seq=need(message.seq, "seq"),
        recorded_ns=_ns(message.recorded_time, "recorded_time"),
        lease_epoch=message.lease_epoch,
        body=part(message, "body", checked_body),
    )


def seen_event(data: bytes) -> RunEvent:
    """The event in stored bytes, for somebody who follows a run and needs no more of it than its order. Its body is
    `Unknown` if only a later release knows its kind. Raises Refusal as `decode_event`, which proofs use."""
    message = parse(data, event_pb2.RunEvent())
    # A body is one kind, so what is in it beside the known ones is another.
    if message.body.WhichOneof("kind") is not None or not message.body.ByteSize():
        return event_from_wire(message)
    message = upcast(message)
    return RunEvent(
        run_id=need(message.run_id, "run_id"),
        seq=need(message.seq, "seq"),
        recorded_ns=_ns(message.recorded_time, "recorded_time"),
        lease_epoch=message.lease_epoch,
        body=Unknown(),
    )


class StoredEvent(NamedTuple):
    """An event as it is stored, with the place in its run. Perhaps only a later release can read all of it."""

    run_id: str
    seq: int
    data: bytes


def stored_event(data: bytes) -> StoredEvent:
    """Whose event the bytes are, whatever else they hold. Raises Refusal if they don't say it."""
    message = parse(data, event_pb2.RunEvent())
    return StoredEvent(need(message.run_id, "run_id"), need(message.seq, "seq"), data)


def recorded_ns(data: bytes) -> int:
    """When the event in stored bytes was recorded, in nanoseconds since 1970; 0 if they don't say. Never raises."""
    try:
        time = event_pb2.RunEvent.FromString(data).recorded_time
    except DecodeError:
        return 0
    return int(time.seconds) * SECOND_NS + int(time.nanos)


def _ns(time: Any, field: str) -> int:
    if not 0 <= time.nanos < SECOND_NS or not 0 <= time.seconds <= _MAX_SECONDS:
        raise Refusal("invalid_value", f"{field} must be a time since 1970", field=field)
    return int(time.seconds) * SECOND_NS + int(time.nanos)
