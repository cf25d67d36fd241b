"""RunService and ReceiptService."""

from __future__ import annotations

from typing import Any

from oa_errors import Refusal
from oa_platform.identity import current_principal
from oa_runlog import wire
from openagents.runtime.v1 import receipt_pb2, receipt_service_pb2, run_pb2, run_service_pb2
from openagents.runtime.v1.receipt_service_pb2_grpc import ReceiptServiceServicer
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceServicer
from services.runtime.app.ports import RunRecord
from services.runtime.app.runs import Runs


def run_message(run: RunRecord) -> run_pb2.Run:
    """The message for a run."""
    return wire.run_to_wire(run.state, run.spec)


class RunApi(RunServiceServicer):
    """Commands on runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def CreateRun(
        self, request: run_service_pb2.CreateRunRequest, context: Any
    ) -> run_service_pb2.CreateRunResponse:
        """Create a run."""
        spec = wire.spec_from_wire(request.spec, path="spec.")
        run, existed = await self._runs.create(current_principal(), request.idempotency_key, spec)
        return run_service_pb2.CreateRunResponse(run=run_message(run), already_created=existed)

    async def GetRun(self, request: run_service_pb2.GetRunRequest, context: Any) -> run_service_pb2.GetRunResponse:
        """Show a run."""
        run = await self._runs.get(current_principal(), request.run_id)
        return run_service_pb2.GetRunResponse(run=run_message(run))

    async def CancelRun(
        self, request: run_service_pb2.CancelRunRequest, context: Any
    ) -> run_service_pb2.CancelRunResponse:
        """Ask for a run to end."""
        run = await self._runs.cancel(current_principal(), request.run_id, request.reason)
        return run_service_pb2.CancelRunResponse(run=run_message(run))


class ReceiptApi(ReceiptServiceServicer):
    """Receipts and the keys to check them with."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def GetReceipt(
        self, request: receipt_service_pb2.GetReceiptRequest, context: Any
    ) -> receipt_service_pb2.GetReceiptResponse:
        """The receipt of a run."""
        receipt = await self._runs.receipt(current_principal(), request.run_id)
        return receipt_service_pb2.GetReceiptResponse(receipt=wire.receipt_to_wire(receipt))

    async def ListReceiptKeys(
        self, request: receipt_service_pb2.ListReceiptKeysRequest, context: Any
    ) -> receipt_service_pb2.ListReceiptKeysResponse:
        """All keys that receipts are or were signed with."""
        keys = await self._runs.receipt_keys()
        messages = [receipt_pb2.ReceiptKey(key_id=key_id, public_key=key) for key_id, key in keys]
        return receipt_service_pb2.ListReceiptKeysResponse(keys=messages)

    # The Merkle log of receipts is served by a later version; until then its methods say so.

    async def GetLogCheckpoint(
        self, request: receipt_service_pb2.GetLogCheckpointRequest, context: Any
    ) -> receipt_service_pb2.GetLogCheckpointResponse:
        """Not served yet."""
        raise _not_served()

    async def GetInclusionProof(
        self, request: receipt_service_pb2.GetInclusionProofRequest, context: Any
    ) -> receipt_service_pb2.GetInclusionProofResponse:
        """Not served yet."""
        raise _not_served()

    async def GetConsistencyProof(
        self, request: receipt_service_pb2.GetConsistencyProofRequest, context: Any
    ) -> receipt_service_pb2.GetConsistencyProofResponse:
        """Not served yet."""
        raise _not_served()


def _not_served() -> Refusal:
    return Refusal("unknown_method", "this version does not serve the log of receipts")
