"""The documents of notifications."""

from __future__ import annotations

from oa_runlog import wire as runlog_wire
from oa_runlog.events import RequestAnswered, RequestExpired, RequestOpened, RunFinished
from openagents.projection.v1 import notification_pb2
from services.projector.notifications.domain import Notification


def encode_notification(notification: Notification) -> bytes:
    """See `domain.Encode`. The message has no map, so each value has exactly one deterministic serialization."""
    message = notification_pb2.Notification(
        run_id=notification.run_id, title=notification.title, run_seq=notification.run_seq
    )
    message.time.FromNanoseconds(notification.recorded_ns)
    match notification.about:
        case RunFinished() as finish:
            message.run_finished.CopyFrom(runlog_wire.finish_to_wire(finish))
        case RequestOpened() as opened:
            message.request_opened.CopyFrom(runlog_wire.opened_to_wire(opened))
        case RequestAnswered(request_id=request_id, answered_by=answered_by):
            settled = notification_pb2.RequestSettled(request_id=request_id, answered_by=answered_by)
            message.request_settled.CopyFrom(settled)
        case RequestExpired(request_id=request_id):
            message.request_settled.CopyFrom(notification_pb2.RequestSettled(request_id=request_id))
    return message.SerializeToString(deterministic=True)
