"""Over a NATS server: core NATS, without JetStream. It keeps nothing, and so can lose what it carries.

    channel = NatsChannel("nats://nats:4222", "openagents.runtime.log", heard, random.random)

A connection that breaks is opened again for ever. What is said meanwhile is lost, and so is what the server can't keep
up with.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from oa_base.backoff import Backoff
from oa_fanout.channel import Heard


@dataclass(frozen=True)
class NatsLimits:
    """How a server is held. Times in seconds."""

    connect_s: int = 2
    """How long an attempt to connect may take."""
    ping_s: int = 2
    """So often a connection is asked whether it stands; one that is silent twice in a row is broken."""
    reconnect_first_ms: int = 100
    reconnect_longest_ms: int = 2_000
    """Longest waits before the next attempt: at first, and later."""


class NatsChannel:
    """A `Channel` on a subject. `jitter` gives numbers from 0 to 1. `changed` is told when the way to the others is
    there, and when it is gone, with the reason. `trust` says whom a server with TLS must convince."""

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
        self._url = url
        self._subject = subject
        self._heard = heard
        self._jitter = jitter
        self._changed = changed
        self._trust = trust
        self._limits = limits or NatsLimits()
        self._backoff = Backoff(self._limits.reconnect_first_ms, self._limits.reconnect_longest_ms)
        self._connection: Client | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a way to the others, as far as is known."""
        return self._connection is not None

    async def say(self, text: str) -> None:
        """Tell the others; lost while there is no connection."""
        if self._connection is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._connection.publish(self._subject, text.encode())

    async def run(self) -> None:
        """Hear the others, until cancelled."""
        attempt = 0
        while True:
            try:
                await self._listen()
                attempt, why = 0, "the connection broke"
            except (nats.errors.Error, OSError, TimeoutError) as error:
                attempt, why = attempt + 1, type(error).__name__
            _raise_if_cancelled()
            self._changed(why)
            await asyncio.sleep(self._backoff.wait_ms(attempt, self._jitter()) / 1000)

    async def _listen(self) -> None:
        """Connect and listen until the connection breaks. Raises when none comes about."""
        broken = asyncio.Event()
        connection = Client()
        try:
            await self._connect(connection, broken)
            await connection.subscribe(self._subject, cb=self._take)
            # The answer says that the server has the subscription.
            await connection.flush(self._limits.connect_s)
            self._connection = connection
            self._changed("")
            await broken.wait()
        finally:
            self._connection = None
            with contextlib.suppress(nats.errors.Error, OSError):
                await connection.close()

    async def _connect(self, connection: Client, broken: asyncio.Event) -> None:
        async def on_broken() -> None:
            broken.set()

        async def on_error(_: Exception) -> None:
            return  # what it costs shows by itself: the connection breaks, or a text is lost

        secure = self._trust() if urlsplit(self._url).scheme == "tls" else None
        async with asyncio.timeout(self._limits.connect_s):
            await connection.connect(
                self._url,
                allow_reconnect=False,
                connect_timeout=self._limits.connect_s,
                ping_interval=self._limits.ping_s,
                max_outstanding_pings=2,
                # Its own words come back to nobody.
                no_echo=True,
                disconnected_cb=on_broken,
                closed_cb=on_broken,
                error_cb=on_error,
                tls=secure,
            )

    async def _take(self, message: Msg) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            self._heard(message.data.decode())


def _raise_if_cancelled() -> None:
    """The client's own close() swallows a cancellation that reaches it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
