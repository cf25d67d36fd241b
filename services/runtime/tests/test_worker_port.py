"""The port for workers alone: what is open there and what isn't, with the certificate for everybody outside."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from oa_base.refusal import Refusal
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.revocations import Revocations
from oa_platform.config.parsers import Address
from oa_platform.config.shared import EdgeTlsSettings, TlsSettings
from oa_platform.health.readiness import Readiness
from oa_platform.process.lifecycle import Process
from oa_testing.peers.authority import Authority
from oa_testing.postgres import Database, free_port
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import log_service_pb2, run_service_pb2
from services.runtime.config import RuntimeSettings
from services.runtime.tests.rig import (
    AS_PROJECTOR,
    Doors,
    FakeWorker,
    Replica,
    refusal_of_call,
    runtime_settings,
    somebody,
)
from services.runtime.wiring import serve

AUTHORITY = Authority()


async def _replica(stack: AsyncExitStack, settings: RuntimeSettings, who_key: StaticKeys) -> Replica:
    process = Process(Readiness(10))
    stack.push_async_callback(process.close)
    server = await serve(settings, process, who_key)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
    return Replica(server, channel, process.readiness, Revocations(process.clock))


async def test_workers_attach_at_their_port_with_tls_and_find_nothing_else(
    runtime_database: Database, tmp_path: Path
) -> None:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    who, port = somebody(), free_port()
    settings = replace(
        runtime_settings(runtime_database),
        worker_address=Address("127.0.0.1", port),
        edge_tls=EdgeTlsSettings(cert_file=cert_file, key_file=key_file),
    )
    async with AsyncExitStack() as stack:
        inside = await _replica(stack, settings, StaticKeys([who.key.public_key]))
        credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate)
        channel = await stack.enter_async_context(grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials))
        outside = Doors(channel)
        assert (await FakeWorker(outside, who).attach()).worker_id
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING

        get_run = run_service_pb2.GetRunRequest(run_id="run_00000000000000000000000000")
        describe_log = log_service_pb2.DescribeLogRequest()
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        for call in (
            outside.runs.GetRun(get_run, metadata=who.as_person()),
            outside.log.DescribeLog(describe_log, metadata=AS_PROJECTOR),
            reflection.ServerReflectionInfo(iter([asked]), metadata=AS_PROJECTOR).read(),
        ):
            assert (await refusal_of_call(call)).reason == "unknown_method"

        # And the port of the services has no more workers.
        assert (await inside.log.DescribeLog(describe_log, metadata=AS_PROJECTOR)).epoch
        with pytest.raises(Refusal, match="unknown_method"):
            await FakeWorker(inside, who).attach()

        plain = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        check = health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert (await refusal_of_call(check)).reason == "unavailable"


def test_certificates_of_services_need_a_port_for_workers(runtime_database: Database, tmp_path: Path) -> None:
    settings = runtime_settings(runtime_database)
    (problem,) = replace(settings, tls=TlsSettings(cert_file=tmp_path / "tls.crt")).problems()
    assert problem[0] == "OA_WORKER_GRPC_ADDRESS"
    assert "set OA_WORKER_GRPC_ADDRESS" in problem[1]
