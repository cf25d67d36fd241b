"""Errors of the wire -> Refusal."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError

from oa_base.environment import with_trust_advice
from oa_base.refusal import Refusal
from oa_wire.status import STATUS_METADATA_KEY, from_code, from_status_bytes
from openagents.runtime.v1.event_pb2 import EventBody
from openagents.runtime.v1.worker_service_pb2 import (
    AppendEventsRequest,
    AppendRefused,
    AttachRequest,
    AttachRequestBatch,
)

_FLAT = frozenset({"text_delta", "message", "verification", "usage", "run_finished"})
"""Kinds of events that hold no JSON, and so nest as deep as the contract says."""


def refusal_of_rpc(error: grpc.aio.AioRpcError) -> Refusal:
    """Return the refusal of the called service; without details of ours, the nearest reason of the catalogue."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_METADATA_KEY and isinstance(value, bytes) and (refusal := from_status_bytes(value)):
            return refusal
    return from_code(error.code().name, with_trust_advice(error.details() or ""))


def refusal_of_append(refused: AppendRefused) -> Refusal:
    """Return the authority's refusal of an append. A reason of a newer authority counts as a defect: retried slowly."""
    return Refusal.received(
        refused.reason,
        refused.message,
        field=refused.field,
        metadata=dict(refused.metadata),
        retry_after_ms=refused.retry_after_ms,
    )


def check_nesting(event: EventBody) -> None:
    """Raises Refusal `invalid_value` for an event whose JSON nests deeper than the authority's reader goes, also in a
    batch with other messages.

    If it were sent, it would not be refused alone: the stream ends at a message that can't be read, and everything that
    was sent with it is lost too.
    """
    kind = event.WhichOneof("kind") or ""
    if kind in _FLAT:
        return
    try:
        append = AttachRequest(append=AppendEventsRequest(events=[event]))
        batch = AttachRequest(batch=AttachRequestBatch(requests=[append]))  # a copy is read, too
        AttachRequest.FromString(batch.SerializeToString())
    except DecodeError:
        raise Refusal(
            "invalid_value", "the event's JSON is nested too deeply to be read; flatten it", field=kind
        ) from None
