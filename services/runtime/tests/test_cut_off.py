"""A replica that alone is cut off from the database: other replicas are called, and its workers stay."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oa_platform.config.parsers import Secret
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from oa_testing.waiting import PATIENCE_S
from services.runtime.tests.rig import attached, replica, runtime_settings, somebody, started

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def _until(said: Any, status: Any) -> None:
    """Return when health says so."""
    while (await anext(said)).status != status:
        pass


async def test_health_says_so_while_the_connections_to_the_database_are_frozen(
    runtime_database: Database, fault_proxies: FaultProxies
) -> None:
    proxy = await fault_proxies("127.0.0.1", runtime_database.port)
    settings = runtime_settings(runtime_database)
    url = Secret(runtime_database.runtime.replace(f":{runtime_database.port}/", f":{proxy.port}/"))
    database = replace(settings.database, url=url, watch_ms=20, silent_s=0.3, statement_timeout_ms=1000)
    who = somebody()
    async with replica(replace(settings, database=database), who.key) as runtime:
        worker = await attached(runtime, who)
        target = f"127.0.0.1:{runtime.server.port}"
        async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(PATIENCE_S):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            said = aiter(watch)
            await _until(said, SERVING)
            proxy.stall()
            await _until(said, NOT_SERVING)
            proxy.resume()
            await _until(said, SERVING)
            assert await started(runtime, who, worker), "on the stream that it had"
            watch.cancel()
