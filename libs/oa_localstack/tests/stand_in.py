"""A program that takes a service's place: answers /readyz on OA_OPS_ADDRESS and behaves as STAND_IN says.

`ready` (also the default) · `never`: answers 503 · `crash`: ends at once with status 3 ·
`deaf`: says `told` at SIGTERM ·
`once`: ready the first time, crashes when started again (STAND_IN_MARK names a file that remembers).
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Readiness(BaseHTTPRequestHandler):
    """200 or 503."""

    def do_GET(self) -> None:
        never = os.environ.get("STAND_IN") == "never"
        self.send_response(503 if never else 200)
        self.end_headers()
        self.wfile.write(b"the stand-in waits for nothing" if never else b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Serve until SIGTERM."""
    behavior = os.environ.get("STAND_IN", "ready")
    _say(f"stand-in: {behavior}")
    mark = Path(os.environ.get("STAND_IN_MARK", os.devnull))
    if behavior == "crash" or (behavior == "once" and mark.exists()):
        sys.exit(3)
    if behavior == "once":
        mark.touch()
    signal.signal(signal.SIGTERM, (lambda *_: _say("told")) if behavior == "deaf" else lambda *_: sys.exit(0))
    host, _, port = os.environ["OA_OPS_ADDRESS"].partition(":")
    HTTPServer((host, int(port)), Readiness).serve_forever()


if __name__ == "__main__":
    main()
