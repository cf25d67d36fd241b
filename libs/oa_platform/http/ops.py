"""/livez, /readyz and /metrics, on a port of their own that needs no identity and tells nothing about anybody.

/livez answers 200 while the event loop runs. /readyz answers 200, or 503 with `{"ready": false, "failures": {name:
why}}`. /metrics has Prometheus's text format, and makes the same checks, so that `oa_ready` is as of now. As in
every client of Prometheus, `/metrics?name[]=oa_ready` shows that one alone.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from oa_platform.config.shared import OpsSettings
from oa_platform.health.readiness import Readiness
from oa_platform.http.protocol import BoundedHttpProtocol
from oa_platform.http.server import HttpServer
from oa_platform.telemetry import metrics
from oa_platform.tls.protection import PLAIN, Protection


def ops_server(settings: OpsSettings, service: str, readiness: Readiness, protection: Protection = PLAIN) -> HttpServer:
    """The server; an async context manager."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        failures = await readiness.failures()
        content = {"service": service, "ready": not failures, "phase": readiness.phase, "failures": failures}
        return JSONResponse(content, 503 if failures else 200)

    async def show_metrics(request: Request) -> Response:
        # Where nothing asks /readyz, the gauges of the checks would stay as they were when somebody last did.
        await readiness.failures()
        names = request.query_params.getlist("name[]")
        return Response(metrics.render(names), headers={"content-type": CONTENT_TYPE_LATEST})

    routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", show_metrics)]
    # Health is answered until the end, because a drain need not wait for requests of this kind.
    app = Starlette(routes=routes)
    protocol = type("OpsProtocol", (_OpsProtocol,), {"max_connections": settings.max_connections})
    return HttpServer(
        app, settings.address, variable="OA_OPS_ADDRESS", drain_s=1.0, protocol=protocol, protection=protection
    )


class _OpsProtocol(BoundedHttpProtocol):
    """Where all places are taken, the newest connection gets that of the oldest on which no probe waits: a probe must
    come through, whatever somebody else keeps open."""

    max_connections: ClassVar[int]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begun_s = self.loop.time()
        self._has_place = True
        others = [one for one in self.connections if isinstance(one, _OpsProtocol) and one._has_place]
        if len(others) > self.max_connections:
            left = (one for one in others if one is not self and not one._is_probe)
            min(left, key=lambda one: one._begun_s, default=self)._leave()

    @property
    def _is_probe(self) -> bool:
        """Whether it waits for the answer to one request, and takes what comes."""
        return self.is_answering and not self.pipeline and not self.flow.write_paused

    def _leave(self) -> None:
        self._has_place = False
        self.transport.abort()  # to close it would be to wait until all is taken that was written
