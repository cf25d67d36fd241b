"""ReplayService: replay artifacts, piece by piece."""

from __future__ import annotations

from typing import Any

from oa_platform.auth.identity import current_principal
from openagents.runtime.v1 import replay_service_pb2 as pb
from openagents.runtime.v1.replay_service_pb2_grpc import ReplayServiceServicer
from services.runtime.replays.app import Replays


class ReplayApi(ReplayServiceServicer):
    """Reads artifacts."""

    def __init__(self, replays: Replays) -> None:
        self._replays = replays

    async def ReadReplayArtifact(
        self, request: pb.ReadReplayArtifactRequest, context: Any
    ) -> pb.ReadReplayArtifactResponse:
        """One piece of a run's artifact."""
        piece = await self._replays.read(current_principal(), request.run_id, request.offset)
        return pb.ReadReplayArtifactResponse(data=piece.data, total_bytes=piece.total_bytes, sha256=piece.sha256)
