"""ReceiptService: receipts, the keys that they are signed with, and the log of all receipts."""

from __future__ import annotations

from typing import Any

from oa_platform.auth.identity import current_principal
from oa_runlog import wire
from openagents.runtime.v1 import receipt_service_pb2 as pb
from openagents.runtime.v1.receipt_service_pb2_grpc import ReceiptServiceServicer
from services.runtime.receipts.app.receipt_log import ReceiptLog
from services.runtime.receipts.app.receipts import Receipts


class ReceiptApi(ReceiptServiceServicer):
    """Serves receipts, and the keys and proofs that they are checked with."""

    def __init__(self, receipts: Receipts, log: ReceiptLog) -> None:
        self._receipts = receipts
        self._log = log

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Any) -> pb.GetReceiptResponse:
        """The receipt of a run."""
        receipt = await self._receipts.receipt(current_principal(), request.run_id)
        return pb.GetReceiptResponse(receipt=wire.receipt_to_wire(receipt))

    async def ListReceiptKeys(self, request: pb.ListReceiptKeysRequest, context: Any) -> pb.ListReceiptKeysResponse:
        """All keys that receipts are or were signed with."""
        keys = await self._receipts.keys()
        return pb.ListReceiptKeysResponse(keys=[wire.receipt_key_to_wire(key) for key in keys])

    async def GetLogCheckpoint(self, request: pb.GetLogCheckpointRequest, context: Any) -> pb.GetLogCheckpointResponse:
        """The newest checkpoint."""
        return pb.GetLogCheckpointResponse(checkpoint=(await self._log.checkpoint()).note)

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Any
    ) -> pb.GetInclusionProofResponse:
        """The proof that a run's receipt is in the log."""
        found = await self._log.inclusion(current_principal(), request.run_id)
        return pb.GetInclusionProofResponse(leaf_index=found.leaf_index, hashes=found.hashes, checkpoint=found.note)

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Any
    ) -> pb.GetConsistencyProofResponse:
        """The proof that the log only grew."""
        return pb.GetConsistencyProofResponse(hashes=await self._log.consistency(request.old_size, request.new_size))
