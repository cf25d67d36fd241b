"""Frames of a gateway in any form, read back for tests. No client of ours reads the one for people."""

from google.protobuf import json_format

from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.wire import decode_server_frame
from openagents.sync.v1 import frame_pb2, readable_frame_pb2


def read_frame(data: bytes, form: Form) -> frames.ServerFrame:
    """As `decode_server_frame`, and under `khala.v2.json` from what is readable."""
    if form is not Form.READABLE:
        return decode_server_frame(data, form)
    return decode_server_frame(_frame(data).SerializeToString(), Form.PROTO)


def _frame(data: bytes) -> frame_pb2.KhalaFrame:
    found = readable_frame_pb2.ReadableFrame()
    json_format.Parse(data, found)
    return frame_pb2.KhalaFrame(
        topic=found.topic,
        seq=found.seq,
        kind=found.kind,
        payload_bytes=found.payload_bytes if found.payload_incomplete else _payload(found),
        schema_version=found.schema_version,
        part=found.part,
        parts=found.parts,
    )


def _payload(found: readable_frame_pb2.ReadableFrame) -> bytes:
    documents = readable_frame_pb2.ReadableDocumentSet()
    if not found.payload.Is(documents.DESCRIPTOR):
        return found.payload.value
    found.payload.Unpack(documents)
    given = frame_pb2.DocumentSet(
        documents=[document.value for document in documents.documents], older_left_out=documents.older_left_out
    )
    return given.SerializeToString(deterministic=True)
