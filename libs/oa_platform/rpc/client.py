"""Channels to other services: our identity, the request id and the trace go along with every call.

    channel = await process.enter(
        open_channel(settings.runtime, settings.client, settings.identity.service_token, process.protection)
    )
    stub = RunServiceStub(channel)
    try:
        await stub.GetRun(request, timeout=5)
    except grpc.aio.AioRpcError as error:
        raise refusal_from_rpc_error(error) from None

The channel reconnects by itself. A target with several addresses, listed or by DNS, has a connection to each; calls go
in turn to those whose health is SERVING. A server that dies, stands still (keepalive) or drains gets no more calls, and
streams on it end as unavailable or draining. A call that has not left this side, or that a draining server did not
take, goes to another server; so does a call that lost its connection, once, if the contract says that it is safe to
repeat (`idempotency_level`). While no known server is healthy, DNS is asked again; a call without `timeout` and
`wait_for_ready` fails at once (unavailable) if no other server is known.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from oa_platform.auth.authenticator import PRINCIPAL_KEY, SERVICE_TOKEN_KEY
from oa_platform.config.parsers import Address, Secret, Target
from oa_platform.config.shared import GrpcClientSettings
from oa_platform.health.failures import refusal_from_rpc_error
from oa_platform.http.proxies import NO_PROXY_OPTION
from oa_platform.rpc.renewed import RenewedChannel
from oa_platform.telemetry.context import REQUEST_ID_KEY, current_request_id
from oa_platform.telemetry.tracing import outgoing_headers
from oa_platform.tls.protection import PLAIN, Protection

__all__ = ["PRINCIPAL_KEY", "open_channel", "refusal_from_rpc_error"]

Details = grpc.aio.ClientCallDetails


def open_channel(
    target: Target | Address, settings: GrpcClientSettings, service_token: Secret, protection: Protection = PLAIN
) -> grpc.aio.Channel:
    """A channel to another service; use it as an async context manager, or close it.

    Raises Refusal(invalid_setting) for a target that may not be called without TLS.
    """
    token = service_token.reveal()
    interceptors: Sequence[grpc.aio.ClientInterceptor] = [
        kind(token) for kind in (_UnaryStream, _StreamUnary, _StreamStream)
    ]
    address, options = str(target), _options(settings)

    def make(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)

    return RenewedChannel(protection.for_channel(target), make, settings.resolve_min_ms, _Outgoing(token).metadata)


_SERVICE_CONFIG = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}},
)


def _options(settings: GrpcClientSettings) -> list[tuple[str, int | str]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", settings.keepalive_interval_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        # Without this one a ping may stay unanswered for a minute, whatever the one above says.
        ("grpc.http2.ping_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", settings.reconnect_min_ms),
        # Despite its name, this is how long an attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", settings.connect_timeout_ms),
        ("grpc.max_reconnect_backoff_ms", settings.reconnect_max_ms),
        NO_PROXY_OPTION,
        ("grpc.dns_min_time_between_resolutions_ms", settings.resolve_min_ms),
        # Without a policy, only calls that no server has seen are sent again. `repeats` decides on others, never DNS.
        ("grpc.enable_retries", 1),
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.service_config_disable_resolution", 1),
    ]


class _Outgoing:
    """Adds our metadata to a call. Streams get it from an interceptor; for unary calls the channel asks for it itself,
    because an interceptor makes a task for each call, which is a fifth of what gRPC takes for a call here."""

    def __init__(self, service_token: str) -> None:
        self._service_token = service_token

    def metadata(self, given: grpc.aio.Metadata | Sequence[tuple[str, str | bytes]] | None) -> grpc.aio.Metadata:
        """The metadata of a call, including what its caller has `given`."""
        metadata = grpc.aio.Metadata(*(given or ()))
        metadata[SERVICE_TOKEN_KEY] = self._service_token
        request_id = current_request_id()
        if request_id and metadata.get(REQUEST_ID_KEY) is None:
            metadata[REQUEST_ID_KEY] = request_id
        for key, value in outgoing_headers().items():
            metadata[key] = value
        return metadata

    def _with_metadata(self, details: Details) -> Details:
        metadata = self.metadata(details.metadata)
        return Details(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)

    async def _go_on(
        self, continuation: Callable[[Details, Any], Awaitable[Any]], details: Details, request: Any
    ) -> Any:
        return await continuation(self._with_metadata(details), request)


class _UnaryStream(_Outgoing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Details, request: Any) -> Any:
        return await self._go_on(continuation, client_call_details, request)


class _StreamUnary(_Outgoing, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Details, request_iterator: Any
    ) -> Any:
        return await self._go_on(continuation, client_call_details, request_iterator)


class _StreamStream(_Outgoing, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Details, request_iterator: Any
    ) -> Any:
        return await self._go_on(continuation, client_call_details, request_iterator)
