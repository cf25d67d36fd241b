"""Calls of an operator to control's internal port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc.aio

from apps.cli.settings import load_settings
from oa_base.refusal import Refusal
from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from oa_client.cpython.operators import RouteOperators
from oa_localstack.installation.secrets import load_or_create
from oa_platform.config.callers import OPERATOR
from oa_platform.config.loading import group, load, peer_port, setting
from oa_platform.config.parsers import Secret, Target, secret_text, target
from oa_platform.config.shared import GrpcClientSettings, TlsSettings
from oa_platform.rpc.client import open_channel, refusal_from_rpc_error
from oa_platform.system.clock import SystemClock
from oa_platform.tls.protection import service_protection
from openagents.control.v1 import block_service_pb2 as pb
from openagents.control.v1.block_service_pb2_grpc import BlockServiceStub

TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """What `oa admin user`, `oa admin route` and `oa admin maintenance` read."""

    control: Target = setting(
        "OA_CONTROL_GRPC",
        target(),
        peer_port("control_grpc"),
        doc="Control's internal port, for `oa admin user`, `route` and `maintenance`.",
    )
    token: Secret | None = setting(
        "OA_OPERATOR_TOKEN",
        secret_text("the operator's token"),
        None,
        doc="The operator's token; without it, that of the local stack in OA_HOME.",
    )
    tls: TlsSettings = group(TlsSettings)
    client: GrpcClientSettings = group(GrpcClientSettings)


@dataclass(frozen=True)
class Subject:
    """A person or service account. `blocked_at` is RFC 3339, and empty while it isn't blocked."""

    subject: str
    name: str
    org_id: str
    blocked_at: str
    live_sessions: int
    live_keys: int
    document: JsonDocument


class Operator:
    """What an operator asks of control. A subject is named by its id, a person also by its address.

    Raises Refusal `not_found`, `unavailable`, `service_not_accepted`.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = BlockServiceStub(channel)

    async def show(self, who: str) -> Subject:
        """The person or service account."""
        with _refusals():
            return _subject((await self._stub.GetSubject(pb.GetSubjectRequest(subject=who), timeout=TIMEOUT_S)).subject)

    async def block(self, who: str) -> Subject:
        """Block it."""
        request = pb.BlockSubjectRequest(subject=who)
        with _refusals():
            return _subject((await self._stub.BlockSubject(request, timeout=TIMEOUT_S)).subject)

    async def unblock(self, who: str) -> Subject:
        """Take the block away."""
        request = pb.UnblockSubjectRequest(subject=who)
        with _refusals():
            return _subject((await self._stub.UnblockSubject(request, timeout=TIMEOUT_S)).subject)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise refusal_from_rpc_error(error) from None


def _subject(message: pb.Subject) -> Subject:
    return Subject(
        message.subject,
        message.name,
        message.org_id,
        message.block_time.ToJsonString() if message.HasField("block_time") else "",
        message.live_sessions,
        message.live_keys,
        document(message),
    )


@asynccontextmanager
async def open_operator(env: Mapping[str, str]) -> AsyncIterator[Operator]:
    """Who is let in. Raises Refusal(invalid_setting)."""
    async with _operator_channel(env) as channel:
        yield Operator(channel)


@asynccontextmanager
async def open_routes(env: Mapping[str, str]) -> AsyncIterator[RouteOperators]:
    """Web routes, and maintenance. Raises Refusal(invalid_setting)."""
    async with _operator_channel(env) as channel:
        yield RouteOperators(channel)


@asynccontextmanager
async def _operator_channel(env: Mapping[str, str]) -> AsyncIterator[grpc.aio.Channel]:
    settings = load(OperatorSettings, env)
    token = settings.token or _of_local_stack(env)
    async with (
        service_protection(settings.tls, SystemClock()) as protection,
        open_channel(settings.control, settings.client, token, protection) as channel,
    ):
        yield channel


def _of_local_stack(env: Mapping[str, str]) -> Secret:
    folder = load_settings(env).home.absolute() / "secrets"
    if not folder.is_dir():
        message = "OA_OPERATOR_TOKEN is not set, and there is no local stack; set it to the operator's token"
        raise Refusal("invalid_setting", message, field="OA_OPERATOR_TOKEN")
    return Secret(load_or_create(folder).service_tokens[OPERATOR])
