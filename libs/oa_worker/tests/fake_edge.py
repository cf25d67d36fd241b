"""A public edge for tests: HTTP that answers as it is told and keeps what it was asked."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from oa_wire.connect import PROTO
from openagents.control.v1 import service_account_service_pb2 as pb

KEY = "oak_secret"


@contextmanager
def edge(
    status: int,
    body: bytes,
    date: str = "",
    tls: ssl.SSLContext | None = None,
    *,
    content_type: str = PROTO,
    keeps_connections: bool = False,
) -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP server that always answers so; gives its URL and what it was sent."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keeps_connections else "HTTP/1.0"

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date or super().date_time_string(timestamp)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            # The handshake is for the thread of the connection: one that fails ends nothing else.
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()


def granted(token: str = "token", address: str = "127.0.0.1:9081") -> bytes:
    response = pb.ExchangeKeyResponse(token=token, runtime_grpc_address=address)
    response.expire_time.FromMilliseconds(int((time.time() + 600) * 1000))
    return response.SerializeToString()
