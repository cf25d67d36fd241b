"""The requests of a run, and their settlements <-> messages."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_runlog import events
from oa_runlog.events import RequestKind
from oa_runlog.wire.fields import EnumMap, need
from openagents.runtime.v1 import event_pb2

_KINDS = EnumMap(RequestKind, event_pb2.RequestKind, "REQUEST_KIND_")


def opened_to_wire(opened: events.RequestOpened) -> event_pb2.RequestOpened:
    """The message for a request."""
    message = event_pb2.RequestOpened(
        request_id=opened.request_id,
        kind=_KINDS.to_wire(opened.kind),
        title=opened.title,
        detail=opened.detail,
        options=[event_pb2.RequestOption(id=option.id, label=option.label) for option in opened.options],
        default_option=opened.default_option,
        has_branches=opened.has_branches,
    )
    if opened.deadline_ns is not None:
        message.deadline_time.FromNanoseconds(opened.deadline_ns)
    return message


def settled_to_wire(settled: events.RequestAnswered | events.RequestExpired) -> event_pb2.EventBody:
    """The body that settles a request."""
    match settled:
        case events.RequestAnswered(request_id, option, text, answered_by):
            answered = event_pb2.RequestAnswered(
                request_id=request_id, option=option, text=text, answered_by=answered_by
            )
            return event_pb2.EventBody(request_answered=answered)
        case events.RequestExpired(request_id, option):
            expired = event_pb2.RequestExpired(request_id=request_id, option=option)
            return event_pb2.EventBody(request_expired=expired)


def checked_opened(message: event_pb2.RequestOpened) -> events.RequestOpened:
    """The request in a message that has passed `check_rules`. Raises Refusal for options that don't fit its kind."""
    options = tuple(events.RequestOption(option.id, option.label) for option in message.options)
    deadline_ns = message.deadline_time.ToNanoseconds() if message.HasField("deadline_time") else None
    opened = events.RequestOpened(
        message.request_id,
        _KINDS.from_wire(message.kind, "kind"),
        message.title,
        message.detail,
        options,
        message.default_option,
        deadline_ns,
        message.has_branches,
    )
    _check_options(opened)
    return opened


def _check_options(opened: events.RequestOpened) -> None:
    ids = [option.id for option in opened.options]
    if opened.kind is RequestKind.CHOICE and not (ids and len(set(ids)) == len(ids)):
        text = "a choice has options, each with an id of its own; name them"
        raise Refusal("invalid_value", text, field="options")
    if opened.kind is not RequestKind.CHOICE and ids:
        raise Refusal("invalid_value", "only a choice has options; leave them out", field="options")
    allowed = {"", "no"} if opened.kind is RequestKind.APPROVAL else {"", *ids}
    if opened.default_option not in allowed:
        text = "the default must be one of the options, and never `yes` for an approval; name another one, or none"
        raise Refusal("invalid_value", text, field="default_option")


def checked_answered(message: event_pb2.RequestAnswered) -> events.RequestAnswered:
    """The answer in a message."""
    request_id, answered_by = need(message.request_id, "request_id"), need(message.answered_by, "answered_by")
    return events.RequestAnswered(request_id, message.option, message.text, answered_by)


def checked_expired(message: event_pb2.RequestExpired) -> events.RequestExpired:
    """The end of a request's time, in a message."""
    return events.RequestExpired(need(message.request_id, "request_id"), message.option)
