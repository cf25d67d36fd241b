"""A legacy web application as a process: prints its port, then answers what tests ask for.

/echo      what it was sent: method, path, headers and body, as JSON
/slow      a head, a chunk at once, and the next one when /go was asked for
/status/N  that status
/cookie    sets a cookie
/stall     no answer at all
else       a page
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GO = threading.Event()


class Legacy(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Whatever the path asks for."""
        path = self.path.partition("?")[0]
        if path == "/echo":
            self.echo()
        elif path == "/slow":
            self.slow()
        elif path == "/stall":
            time.sleep(3600)
        elif path == "/go":
            GO.set()
            self.send(200, b"going")
        elif path.startswith("/status/"):
            self.send(int(path.rpartition("/")[2]), b"as asked")
        elif path == "/cookie":
            self.send(200, b"set", [("Set-Cookie", "legacy=1; Path=/"), ("Set-Cookie", "two=2; Path=/")])
        else:
            self.send(200, b"<title>legacy</title>", [("Content-Type", "text/html"), ("X-Frame-Options", "SAMEORIGIN")])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def echo(self) -> None:
        """What came."""
        said = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.body().decode("latin-1"),
        }
        self.send(200, json.dumps(said).encode(), [("Content-Type", "application/json"), ("Connection", "keep-alive")])

    def body(self) -> bytes:
        """The body, chunked or not."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def slow(self) -> None:
        """Two chunks, the second one on a word."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        GO.wait()
        self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")

    def send(self, status: int, content: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        """An answer in one piece."""
        self.send_response(status)
        for name, value in headers or []:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test has what it needs."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Legacy)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
