"""The floor of a call of the edge: an HTTP handler and a gRPC method that do nothing but answer.

The handler is Starlette's on control's server (uvicorn with httptools, on uvloop); the method is a generic one of
grpc.aio. Each reads the request, and answers with `BYTES` bytes. No token is checked, no message is parsed, and there
is no database.

`python -m benchmarks.peers.bare_edge BYTES` prints both ports, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oa_platform.config.parsers import Address
from oa_platform.http.server import HttpServer

GRPC_METHOD = "/bench.Edge/Echo"
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class BareEdge:
    """A running floor."""

    pid: int
    http_port: int
    grpc_port: int


@contextmanager
def bare_edge(answer_bytes: int) -> Iterator[BareEdge]:
    """The process, for a block."""
    command = [sys.executable, "-m", "benchmarks.peers.bare_edge", str(answer_bytes)]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        http_port, grpc_port = map(int, child.stdout.readline().split())
        yield BareEdge(child.pid, http_port, grpc_port)


async def _serve(answer: bytes) -> None:
    async def handle(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    async def echo(_request: bytes, _context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    service, method = GRPC_METHOD.strip("/").split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    app = Starlette(routes=[Route("/{path:path}", handle, methods=["POST"])])
    async with HttpServer(app, Address("127.0.0.1", 0), variable="BYTES") as http:
        print(http.port, grpc_port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve(bytes(int(sys.argv[1]))))
