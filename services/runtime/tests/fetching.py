"""Artifacts and keys, as whoever may see them gets them."""

from __future__ import annotations

import hashlib

from openagents.runtime.v1 import receipt_service_pb2
from openagents.runtime.v1 import replay_service_pb2 as pb
from services.runtime.tests.rig import (
    Replica,
    Somebody,
)


async def fetched(runtime: Replica, who: Somebody, run_id: str) -> bytes:
    """The whole artifact, piece by piece, held against what each piece says of it."""
    data = b""
    while True:
        request = pb.ReadReplayArtifactRequest(run_id=run_id, offset=len(data))
        piece = await runtime.replays.ReadReplayArtifact(request, metadata=who.as_person())
        data += piece.data
        if not piece.data:
            assert piece.total_bytes == len(data)
            assert piece.sha256 == hashlib.sha256(data).digest()
            return data


async def keys_of(runtime: Replica, who: Somebody) -> dict[str, bytes]:
    answer = await runtime.receipts.ListReceiptKeys(
        receipt_service_pb2.ListReceiptKeysRequest(), metadata=who.as_person()
    )
    return {key.key_id: key.public_key for key in answer.keys}
