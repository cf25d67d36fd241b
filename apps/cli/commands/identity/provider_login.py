"""Signing in with an identity provider from a terminal: the answer comes to this machine, or is pasted (RFC 8252)."""

from __future__ import annotations

import asyncio
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import click

from apps.cli.program import Cli
from oa_base.refusal import Refusal
from oa_client.edge.auth import Credentials, ProviderSignIn

_HOST = "127.0.0.1"
_PATH = "/callback"
_NO_PORT = 9
"""A port where nobody listens: the browser is elsewhere, and shows the address that it could not open."""
_CONNECTION_TIMEOUT_S = 30.0
_MAX_ANSWER_CHARS = 8192
_PAGE = b"""<!doctype html><meta charset="utf-8"><title>OpenAgents</title>
<p>The provider has answered. You can close this page; the terminal says how the sign-in ended.</p>"""


def with_provider(cli: Cli, provider: str, *, paste: bool, port: int) -> Credentials:
    """Sign in. It waits outside of the event loop, so that Ctrl-C ends it."""
    if paste and cli.output.as_json:
        raise click.UsageError("--paste shows a page to open, and so goes without --json")
    if paste:
        begun = asyncio.run(_start(cli, provider, f"http://{_HOST}:{port or _NO_PORT}{_PATH}"))
        _show(cli, begun)
        cli.output.note("The browser then shows an address that it can't open. Paste the whole address here.")
        return asyncio.run(_finish(cli, begun, cli.output.ask("Address")))
    with receiver_at(port) as receiver:
        begun = asyncio.run(_start(cli, provider, receiver.redirect_uri))
        receiver.state = begun.state
        _show(cli, begun)
        if not webbrowser.open(begun.url) and cli.output.as_json:
            raise Refusal("invalid_value", "no browser can be opened here; leave --json out, and open what is shown")
        return asyncio.run(_finish(cli, begun, receiver.answered(begun.expires_at - time.time())))


def _show(cli: Cli, begun: ProviderSignIn) -> None:
    cli.output.note("Sign in on this page, in a browser:")
    cli.output.note(begun.url, "")


async def _start(cli: Cli, provider: str, redirect_uri: str) -> ProviderSignIn:
    async with cli.site_of_person.client() as client:
        return await client.auth.start_with(provider, redirect_uri)


async def _finish(cli: Cli, begun: ProviderSignIn, answer: str) -> Credentials:
    state, code = answer_of(answer)
    async with cli.site_of_person.client() as client:
        return await client.auth.finish(begun, state, code)


def answer_of(address: str) -> tuple[str, str]:
    """Return state and code of the address that a provider sent the browser to.

    Raises Refusal `invalid_value` for any other address, and `provider_refused` if the provider refused.
    """
    try:
        given = parse_qs(urlsplit(address.strip()[:_MAX_ANSWER_CHARS]).query)
    except ValueError:
        given = {}
    if "error" in given:
        # The error may be anybody's words: somebody who made up such an address could have people read them.
        raise Refusal("provider_refused", "the provider did not let you sign in; start again, or ask who runs it")
    if not given.get("state") or not given.get("code"):
        message = f"this is not the provider's answer; paste the whole address, which begins with http://{_HOST}:"
        raise Refusal("invalid_value", message)
    return given["state"][0], given["code"][0]


@dataclass
class Receiver:
    """Waits for the browser. An answer with another state than `state` is somebody else's and is ignored."""

    redirect_uri: str = ""
    state: str = ""
    answer: str = ""
    came: threading.Event = field(default_factory=threading.Event)

    def take(self, target: str) -> bool:
        """Keep a request that is the provider's answer. Return whether it is."""
        parts = urlsplit(target)
        ours = parts.path == _PATH and self.state and parse_qs(parts.query).get("state") == [self.state]
        if not ours or self.came.is_set():
            return False
        self.answer = target
        self.came.set()
        return True

    def answered(self, within_s: float) -> str:
        """The answer. Raises Refusal `challenge_expired` when none comes in time."""
        if not self.came.wait(max(0.0, within_s)):
            message = "the provider's answer did not come; start again, with --paste if the browser is elsewhere"
            raise Refusal("challenge_expired", message)
        return self.answer


@contextmanager
def receiver_at(port: int) -> Iterator[Receiver]:
    """Receive at a port of this machine within the block. Raises Refusal `invalid_value` if the port is taken."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        timeout = _CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            found = len(self.path) <= _MAX_ANSWER_CHARS and receiver.take(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(_PAGE if found else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing, because a request holds a code."""

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except OSError:
        message = f"port {port} of this machine is taken; give another one, or --paste"
        raise Refusal("invalid_value", message, field="--port") from None
    # Browsers open connections that they never use.
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        receiver.redirect_uri = f"http://{_HOST}:{server.server_port}{_PATH}"
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
