"""A gRPC server that identifies every caller, checks every request, and answers every error from the catalogue.

    authenticator = Authenticator("runtime", settings.identity.accepted_services, verifier)
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    server.register(add_RunServiceServicer_to_server, RunApi(...))
    await process.enter(server)

Handlers of streams are async generators, and read requests by `async for` (so that they are checked). They raise
`Refusal`, never `context.abort`. On a drain, streams have `stream_drain_s` to end by themselves after `draining` was
set; the rest are ended with the reason `draining`, which makes clients reconnect elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from oa_platform.auth.authenticator import Authenticator
from oa_platform.config.shared import GrpcServerSettings
from oa_platform.http.server import bind
from oa_platform.rpc.calls import CallGuard
from oa_platform.rpc.credentials import server_credentials
from oa_platform.telemetry import metrics
from oa_platform.tls.protection import PLAIN, Protection

S = TypeVar("S")
_log = structlog.get_logger(__name__)
# Larger messages never reach our own check, which answers with a reason; gRPC itself has only a text.
_TRANSPORT_SLACK_BYTES = 1 << 20


class GrpcServer:
    """One gRPC port of a service, with health and reflection."""

    def __init__(
        self,
        settings: GrpcServerSettings,
        authenticator: Authenticator,
        protection: Protection = PLAIN,
        *,
        variable: str = "OA_GRPC_ADDRESS",
        reflection: bool = True,
    ) -> None:
        """`variable` is the setting of the address, for messages."""
        self._settings = settings
        self._protection = protection
        self._variable = variable
        self._reflection = reflection
        metrics.show_refusals("grpc")
        self._guard = CallGuard(settings, authenticator, certified=protection.certificates is not None)
        self._server = grpc.aio.server(interceptors=[self._guard], options=_options(settings))
        self._health = health_aio.HealthServicer()
        self._names: list[str] = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        self.port = 0
        """The port that it listens on, once it does."""

    @property
    def draining(self) -> asyncio.Event:
        """Set when the server begins to go away; handlers of long streams watch it."""
        return self._guard.draining

    def register(self, add: Callable[[S, grpc.aio.Server], None], servicer: S) -> None:
        """Serve `servicer`; `add` is the generated `add_…Servicer_to_server`."""
        add(servicer, cast("grpc.aio.Server", _Registrar(self._server, self._names)))

    async def __aenter__(self) -> Self:
        """Listen; raises Refusal: port_in_use, or invalid_setting for an address that needs TLS."""
        certificates = self._protection.for_listener(self._settings.address, self._variable)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._reflection:
            reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        # gRPC reports a port in use on stderr, in its own words. We check first, to report it in ours.
        bind(self._settings.address, self._variable).close()
        address = str(self._settings.address)
        if certificates is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, server_credentials(certificates))
        await self._server.start()
        await self.advertise(True)
        _log.info("grpc_listening", address=address, port=self.port, tls=certificates is not None)
        return self

    async def advertise(self, able: bool) -> None:
        """Tell clients that watch our health whether this replica can do their work now. Those that call all the same
        are served, and open streams stay. After `withdraw` this says nothing."""
        status = health_pb2.HealthCheckResponse.SERVING if able else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def withdraw(self) -> None:
        """Tell clients that watch our health that we want no new calls; those that come are served until the drain."""
        await self._health.enter_graceful_shutdown()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, then stop."""
        await self.withdraw()
        await self._guard.drain()
        await self._server.stop(self._settings.call_drain_s)
        _log.info("grpc_stopped", port=self.port)


class _Registrar:
    """Stands for the server while generated code registers a servicer, and notes the service's name."""

    def __init__(self, server: grpc.aio.Server, names: list[str]) -> None:
        self._server = server
        self._names = names

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._names.extend(handler.service_name() for handler in handlers)
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """grpc.aio finds methods by the generic handlers alone."""


def _options(settings: GrpcServerSettings) -> list[tuple[str, int]]:
    limit = settings.max_message_bytes + _TRANSPORT_SLACK_BYTES
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Two servers on one port would each get some of the calls; the second one must fail instead.
        ("grpc.so_reuseport", 0),
        # Clients ping every 10 s (OA_GRPC_KEEPALIVE_MS), also without a call; the default takes that for an attack.
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients that are gone without a word hold leases and streams, so they must be noticed.
        ("grpc.keepalive_time_ms", settings.keepalive_interval_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.http2.ping_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_calls_of_connection),
        ("grpc.server_handshake_timeout_ms", settings.handshake_timeout_ms),
        ("grpc.max_connection_idle_ms", settings.idle_timeout_ms),
        # Between these two, gRPC refuses calls at random.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
    ]
