"""Reports of Codex workers <-> `openagents.codex.v1.CodexEvent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from oa_base.refusal import Refusal
from oa_runlog import events
from oa_runlog.wire.fields import EnumMap, part
from oa_runlog.wire.json_values import object_to_wire, optional_object
from openagents.codex.v1 import event_pb2 as codex_pb2

_TURNS = EnumMap(events.TurnStatus, codex_pb2.TurnStatus, "TURN_STATUS_")
_CONTROLS = EnumMap(events.ControlOutcome, codex_pb2.ControlOutcome, "CONTROL_OUTCOME_")


def codex_to_wire(body: events.CodexEvent) -> codex_pb2.CodexEvent:
    """The message for a report."""
    message = codex_pb2.CodexEvent(codex_thread_id=body.codex_thread_id)
    match body.kind:
        case events.TurnStatusChanged() as turn:
            status = _TURNS.to_wire(turn.status)
            changed = codex_pb2.TurnStatusChanged(turn_id=turn.turn_id, status=status, message=turn.message)
            message.turn.CopyFrom(changed)
        case events.CodexItem() as item:
            content = object_to_wire(item.content)
            sent = codex_pb2.CodexItem(
                turn_id=item.turn_id, item_id=item.item_id, item_type=item.item_type, content=content
            )
            message.item.CopyFrom(sent)
        case events.ControlRequest() as asked:
            detail = object_to_wire(asked.detail)
            request = codex_pb2.ControlRequest(request_id=asked.request_id, action=asked.action, detail=detail)
            message.control_request.CopyFrom(request)
        case events.ControlReceipt() as done:
            outcome = _CONTROLS.to_wire(done.outcome)
            receipt = codex_pb2.ControlReceipt(request_id=done.request_id, outcome=outcome, message=done.message)
            message.control_receipt.CopyFrom(receipt)
    return message


_KINDS: Mapping[str, Callable[[Any], events.CodexKind]] = MappingProxyType(
    {
        "turn": lambda m: events.TurnStatusChanged(m.turn_id, _TURNS.from_wire(m.status, "status"), m.message),
        "item": lambda m: events.CodexItem(m.item_type, m.turn_id, m.item_id, optional_object(m, "content")),
        "control_request": lambda m: events.ControlRequest(m.request_id, m.action, optional_object(m, "detail")),
        "control_receipt": lambda m: events.ControlReceipt(
            m.request_id, _CONTROLS.from_wire(m.outcome, "outcome"), m.message
        ),
    }
)


def checked_codex(message: codex_pb2.CodexEvent) -> events.CodexEvent:
    """The report in a message that has passed `check_rules`. Raises Refusal."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise Refusal("missing_payload", "the Codex event holds none of its kinds; set one of them", field="kind")
    return events.CodexEvent(part(message, kind, _KINDS[kind]), message.codex_thread_id)
