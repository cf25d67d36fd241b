"""The epoch of the log, as projector is told."""

from __future__ import annotations

from openagents.runtime.v1 import log_service_pb2
from services.runtime.tests.rig import (
    AS_PROJECTOR,
    Replica,
)


async def epoch_of(runtime: Replica) -> str:
    described = await runtime.log.DescribeLog(log_service_pb2.DescribeLogRequest(), metadata=AS_PROJECTOR)
    return str(described.epoch)
