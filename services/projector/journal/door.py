"""The payload of a snapshot."""

from __future__ import annotations

from openagents.sync.v1 import frame_pb2
from services.projector.journal.domain import DocumentSet


def encode_documents(found: DocumentSet) -> bytes:
    """A serialized openagents.sync.v1.DocumentSet."""
    message = frame_pb2.DocumentSet(documents=found.documents, older_left_out=found.older_left_out)
    return message.SerializeToString(deterministic=True)
