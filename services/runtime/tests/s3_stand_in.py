"""As much of S3's protocol as the archive uses: objects in one request or in parts, read, missing, refused, away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ACCESS_KEY = "the-access-key"
_ERROR = "<Error><Code>{0}</Code><Message>{0}</Message></Error>"


class StandIn:
    """What the server holds and has seen. `failing`: it answers 503."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.uploads = 0
        self.failing = False
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        if self.stand_in.failing:
            self._answer(503, _ERROR.format("SlowDown").encode())
        elif f"Credential={ACCESS_KEY}/" not in self.headers.get("authorization", ""):
            self._answer(403, _ERROR.format("InvalidAccessKeyId").encode())
        else:
            getattr(self, f"_{self.command.lower()}")(url.path, query, body)

    do_GET = do_PUT = do_POST = _handle

    def _get(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        data = self.stand_in.objects.get(path)
        self._answer(200, data) if data is not None else self._answer(404, _ERROR.format("NoSuchKey").encode())

    def _put(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploadId" in query:
            self.stand_in.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
        else:
            self.stand_in.objects[path] = body
        self._answer(200, b"")

    def _post(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if "uploads" in query:
            self.stand_in.uploads += 1
            upload = str(self.stand_in.uploads)
            self.stand_in.parts[upload] = {}
            name = "InitiateMultipartUploadResult"
            self._answer(200, f"<{name}><UploadId>{upload}</UploadId></{name}>".encode())
            return
        parts = self.stand_in.parts.pop(query["uploadId"][0])
        self.stand_in.objects[path] = b"".join(parts[number] for number in sorted(parts))
        self._answer(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", '"x"')
        self.send_header("last-modified", "Sun, 22 Nov 2026 18:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests say themselves what they saw."""


@contextmanager
def s3_stand_in() -> Iterator[StandIn]:
    """A server on loopback for a block."""
    stand_in = StandIn()
    handler = type("Handler", (_Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
