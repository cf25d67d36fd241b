"""Live frames <-> messages of TopicService."""

from __future__ import annotations

from oa_base.clock import SECOND_NS
from oa_topics.watcher import Frames, Origin
from openagents.sync.v1 import topic_service_pb2 as pb


def frames_to_wire(batch: Frames) -> pb.TopicFrames:
    """The message with frames, and with their origin if it is known."""
    message = pb.TopicFrames(topic=batch.topic, epoch=batch.epoch, first_seq=batch.first_seq, frames=batch.frames)
    if batch.origin is not None:
        message.traceparent = batch.origin.traceparent
        if batch.origin.recorded_ns:
            time = message.recorded_time
            time.seconds, time.nanos = divmod(batch.origin.recorded_ns, SECOND_NS)
    return message


def origin_from_wire(message: pb.TopicFrames) -> Origin | None:
    """The origin of frames; None when the source does not state it."""
    if not message.traceparent and not message.HasField("recorded_time"):
        return None
    time = message.recorded_time
    return Origin(time.seconds * SECOND_NS + time.nanos, message.traceparent)
