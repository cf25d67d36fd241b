"""Keeps new calls away from a replica that the database is silent to: its gRPC health says NOT_SERVING meanwhile.

Calls could only fail there, seconds later, and another replica may reach the database. Open streams stay, and who calls
all the same is served.
"""

from __future__ import annotations

import structlog

from oa_platform.postgres.silence import Silence
from oa_platform.rpc.server import GrpcServer

_log = structlog.get_logger(__name__)


async def advertise_database(silence: Silence, *servers: GrpcServer) -> None:
    """Have the health of the servers, which listen already, follow the silence of the database, until canceled."""
    while True:
        await silence.began.wait()
        _log.warning("database_silent")
        await _advertise(servers, False)
        await silence.ended.wait()
        _log.info("database_answers")
        await _advertise(servers, True)


async def _advertise(servers: tuple[GrpcServer, ...], able: bool) -> None:
    for server in servers:
        await server.advertise(able)
