"""What clients read, in each form that a gateway writes."""

from __future__ import annotations

from google.protobuf import json_format

from oa_khala.frames import Form, ServerFrame
from oa_khala.wire import decode_server_frame
from openagents.sync.v1 import frame_pb2, readable_frame_pb2


def read(data: bytes, form: Form) -> ServerFrame:
    """The frame. Of what is readable, the payload is made from its message again: it has to be what was stored."""
    if form is not Form.READABLE:
        return decode_server_frame(data, form)
    message = json_format.Parse(data, readable_frame_pb2.ReadableFrame())
    frame = frame_pb2.KhalaFrame(
        topic=message.topic,
        seq=message.seq,
        kind=message.kind,
        payload_bytes=message.payload_bytes if message.payload_incomplete else message.payload.value,
        schema_version=message.schema_version,
        part=message.part,
        parts=message.parts,
    )
    return decode_server_frame(frame.SerializeToString(), Form.PROTO)
