"""A channel over a NATS server: core NATS, without JetStream. The server stores nothing, so messages can get lost.

    channel = NatsChannel("nats://nats:4222", "openagents.runtime.log", heard, random.random)

A connection that breaks is opened again for ever. What is said meanwhile is lost, and so is what the server can't keep
up with.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from oa_base.backoff import Backoff
from oa_fanout.channel import Heard

HeardBytes = Callable[[bytes], None]
"""Receives what was published on a subject. Must not block and must not raise."""


@dataclass(frozen=True)
class NatsLimits:
    """Limits of a connection to a server. Times are in seconds."""

    connect_s: int = 2
    """Maximum time of an attempt to connect, and of the end of a connection."""
    ping_s: int = 2
    """Interval between pings. A connection that leaves two in a row unanswered is broken."""
    reconnect_first_ms: int = 100
    reconnect_max_ms: int = 2_000
    """Maximum waits before the first and before later attempts to reconnect."""


class _Secured(Client):
    """Sends nothing, its credentials least of all, to a server that does not require TLS.

    The package itself encrypts only if the server's first line, which is not encrypted, asks for it. Anybody between
    here and the server can change that line.
    """

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


class NatsConnection:
    """A connection to a server, opened again for ever, and what is listened to over it. Call `run` in the background.

    `jitter` gives numbers from 0 to 1. `changed` is told when the connection is there, and when it is gone, with the
    reason: the name of an error. `trust` says whom a server with TLS must convince. A server at a `tls://` URL must
    require TLS.
    """

    def __init__(
        self,
        url: str,
        jitter: Callable[[], float],
        changed: Callable[[str], None] = lambda _: None,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        limits: NatsLimits | None = None,
    ) -> None:
        self._url = url
        self._jitter = jitter
        self._changed = changed
        self._trust = trust
        self._limits = limits or NatsLimits()
        self._backoff = Backoff(self._limits.reconnect_first_ms, self._limits.reconnect_max_ms)
        self._connection: Client | None = None
        self._last_error: Exception | None = None
        """Why the last attempt to connect failed: the package goes on trying until the time is over."""
        self._wanted: dict[str, HeardBytes] = {}
        # The subscriptions that this connection has at the server, and the subjects that are still to be changed there.
        self._subscribed: dict[str, tuple[HeardBytes, Subscription]] = {}
        self._to_tell: dict[str, None] = {}
        self._news = asyncio.Event()

    @property
    def max_bytes(self) -> int:
        """Maximum size of one message in bytes; 0 while no connection is known."""
        return self._connection.max_payload if self._connection is not None else 0

    async def publish(self, subject: str, data: bytes) -> None:
        """Publish a message. It is lost while there is no connection, and when too many wait."""
        if self._connection is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._connection.publish(subject, data)

    def subscribe(self, subject: str, heard: HeardBytes) -> None:
        """Soon receive what others publish on `subject`, over this and every later connection.

        The server is told of subjects in the order in which they were added.
        """
        self._wanted[subject] = heard
        self._tell(subject)

    def unsubscribe(self, subject: str) -> None:
        """Stop receiving; a subject without a subscription is ignored."""
        if self._wanted.pop(subject, None) is not None:
            self._tell(subject)

    async def run(self) -> None:
        """Keep the connection open until canceled."""
        attempt = 0
        while True:
            try:
                await self._hold()
                attempt, why = 0, "the connection broke"
            except Exception as error:  # noqa: BLE001 - of what is no server of NATS, the package raises whatever comes
                attempt, why = attempt + 1, _name(self._last_error or error)
            _raise_if_cancelled()
            self._changed(why)
            await asyncio.sleep(self._backoff.wait_ms(attempt, self._jitter()) / 1000)

    def _tell(self, subject: str) -> None:
        self._to_tell.pop(subject, None)  # its place is now the last
        self._to_tell[subject] = None
        self._news.set()

    async def _hold(self) -> None:
        """Connect and receive until the connection breaks. Raises if no connection can be made."""
        broken = asyncio.Event()
        connection = _Secured() if urlsplit(self._url).scheme == "tls" else Client()
        self._last_error = None
        self._subscribed.clear()
        self._to_tell = dict.fromkeys(self._wanted)
        try:
            await self._connect(connection, broken)
            await self._tell_all(connection)
            # The answer proves that the server has the subscriptions.
            await connection.flush(self._limits.connect_s)
            self._connection = connection
            self._changed("")
            while not broken.is_set():
                await self._news.wait()
                self._news.clear()
                await self._tell_all(connection)
        finally:
            self._connection = None
            # After a TLS handshake that failed, the package waits for ever for its connection to end.
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(self._limits.connect_s):
                    await connection.close()

    async def _tell_all(self, connection: Client) -> None:
        while self._to_tell:
            subject = next(iter(self._to_tell))
            del self._to_tell[subject]
            heard, (heard_so_far, standing) = self._wanted.get(subject), self._subscribed.pop(subject, (None, None))
            if standing is not None and heard != heard_so_far:
                await standing.unsubscribe()
                standing = None
            if heard is not None:
                standing = standing or await connection.subscribe(subject, cb=_taking(heard))
                self._subscribed[subject] = heard, standing

    async def _connect(self, connection: Client, broken: asyncio.Event) -> None:
        async def on_broken() -> None:
            broken.set()
            self._news.set()

        async def on_error(error: Exception) -> None:
            # What it costs later shows by itself: the connection breaks, or a text is lost.
            self._last_error = error

        secure = self._trust() if isinstance(connection, _Secured) else None
        async with asyncio.timeout(self._limits.connect_s):
            await connection.connect(
                self._url,
                allow_reconnect=False,
                connect_timeout=self._limits.connect_s,
                ping_interval=self._limits.ping_s,
                max_outstanding_pings=2,
                # The server does not echo a connection's own messages.
                no_echo=True,
                disconnected_cb=on_broken,
                closed_cb=on_broken,
                error_cb=on_error,
                tls=secure,
            )


class NatsChannel:
    """A `Channel` on a subject: see NatsConnection for the arguments."""

    def __init__(
        self,
        url: str,
        subject: str,
        heard: Heard,
        jitter: Callable[[], float],
        changed: Callable[[str], None] = lambda _: None,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        limits: NatsLimits | None = None,
    ) -> None:
        self._subject = subject
        self._heard = heard
        self._connection = NatsConnection(url, jitter, changed, trust, limits)
        self._connection.subscribe(subject, self._take)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection.max_bytes > 0

    async def say(self, text: str) -> None:
        """Send a text to the others. It is lost while there is no connection."""
        await self._connection.publish(self._subject, text.encode())

    async def run(self) -> None:
        """Receive from the others until canceled."""
        await self._connection.run()

    def _take(self, data: bytes) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            self._heard(data.decode())


def _name(error: Exception) -> str:
    # The package has no class of its own for credentials that are refused while it connects.
    refused = type(error) is nats.errors.Error and "authorization" in str(error).lower()
    return nats.errors.AuthorizationError.__name__ if refused else type(error).__name__


def _taking(heard: HeardBytes) -> Callable[[Msg], Awaitable[None]]:
    async def take(message: Msg) -> None:
        heard(message.data)

    return take


def _raise_if_cancelled() -> None:
    """The client's own close() swallows a cancellation that reaches it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
