"""The projector's doors behind the real gRPC server, with the identity checks that it makes, and who calls them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from oa_base.identity import ISSUER
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import PRINCIPAL_KEY, SERVICE_TOKEN_KEY, Authenticator
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.config.loading import load
from oa_platform.config.shared import GrpcServerSettings, token_hash
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.rpc.refusals import note_refusal
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.clock import SystemClock
from oa_topics.servicer import TopicApi
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from openagents.projection.v1 import read_service_pb2_grpc
from openagents.sync.v1 import topic_service_pb2_grpc
from services.projector.summaries.door import ReadApi
from services.projector.tests import histories as h
from services.projector.tests.rig import Rig
from services.projector.wiring import delivery_checks

KEY = generate_key()
GATEWAY, CONTROL = "gateway's token", "control's token"
MINE = f"user:{h.USER}:runs"
OURS = f"org:{h.ORG}:runs"


@dataclass
class Doors:
    """Stubs of the running server."""

    topics: topic_service_pb2_grpc.TopicServiceAsyncStub
    reads: read_service_pb2_grpc.ReadServiceAsyncStub


@asynccontextmanager
async def opened(rig: Rig) -> AsyncIterator[Doors]:
    """The doors of `rig`, and its hub at work."""
    accepted = {token_hash(GATEWAY): "khala_gateway", token_hash(CONTROL): "control"}
    verifier = TokenVerifier(StaticKeys([KEY.public_key]), SystemClock())
    settings = load(GrpcServerSettings, {"OA_GRPC_ADDRESS": "127.0.0.1:0", "OA_GRPC_STREAM_DRAIN_S": "0.1"})
    checks = delivery_checks(rig.postgres)
    server = GrpcServer(settings, Authenticator("projector", accepted, verifier))
    topics = TopicApi(rig.hub, checks, note_refusal)
    server.register(topic_service_pb2_grpc.add_TopicServiceServicer_to_server, topics)
    server.register(read_service_pb2_grpc.add_ReadServiceServicer_to_server, ReadApi(rig.reads, rig.checkpoints))
    tasks = [asyncio.create_task(work) for work in (rig.hub.run(), checks.run())]
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        # The async stubs exist in the type stubs only.
        topic_stub: Any = topic_service_pb2_grpc.TopicServiceStub(channel)
        read_stub: Any = read_service_pb2_grpc.ReadServiceStub(channel)
        yield Doors(topic_stub, read_stub)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def as_gateway() -> tuple[tuple[str, str], ...]:
    """Metadata of a service that may ask for topics."""
    return ((SERVICE_TOKEN_KEY, GATEWAY),)


def as_person(
    subject: str = h.USER, org_id: str = h.ORG, scopes: tuple[str, ...] = ("runs.read",)
) -> tuple[tuple[str, str], ...]:
    """Metadata of control, on behalf of a person or a service account."""
    now = int(time.time())
    kind = principal_pb2.PRINCIPAL_KIND_USER
    if subject.startswith("sva_"):
        kind = principal_pb2.PRINCIPAL_KIND_SERVICE_ACCOUNT
    claims = claims_pb2.PrincipalClaims(
        iss=ISSUER,
        sub=subject,
        aud="projector",
        iat=now,
        nbf=now,
        exp=now + 60,
        jti="1",
        kind=kind,
        org_id=org_id,
        scopes=scopes,
    )
    return ((SERVICE_TOKEN_KEY, CONTROL), (PRINCIPAL_KEY, sign_token(claims, KEY)))


async def refused(call: Any) -> Refusal:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_from_rpc_error(caught.value)
