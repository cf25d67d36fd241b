"""A TLS port that counts connections from the moment at which they are accepted.

A server of the event loop tells its protocols of a connection once TLS has shaken hands. Of one that never does, they
are told nothing, so they could not limit how many of these somebody keeps open.

Before the handshake, only the address of the other end is known. Behind a proxy that passes TLS on, this is the
proxy's, whoever the client is: trusted proxies have no limit here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from oa_base.crowd import Crowd
from oa_base.refusal import Refusal
from oa_platform.config.parsers import IpNetwork
from oa_platform.http.proxies import client_network, is_within
from oa_platform.telemetry.metrics import count_refusal
from oa_platform.tls.certificates import Certificates, server_context

_log = structlog.get_logger(__name__)
_SHORTAGE_PAUSE_S = 1.0
"""Pause before the next connection is accepted where the process has no descriptor for it. It waits meanwhile."""


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """Limits of handshakes. `trusted` are our own proxies."""

    max_of_network: int = 200
    deadline_s: float = 10.0
    trusted: Sequence[IpNetwork] = ()
    backlog: int = 2048


HANDSHAKES = HandshakeLimits()


class TlsListener:
    """Accepts connections from when it is made until it is closed. In the place of an `asyncio.Server`."""

    def __init__(
        self,
        listener: socket.socket,
        new_protocol: Callable[[], asyncio.Protocol],
        certificates: Certificates,
        limits: HandshakeLimits,
        surface: str,
    ) -> None:
        """`new_protocol` makes the protocol of a connection. `surface` is where its refusals are counted."""
        self._listener = listener
        self._new_protocol = new_protocol
        self._context = server_context(certificates)
        self._limits = limits
        self._surface = surface
        self._networks = Crowd("network", limits.max_of_network, "handshakes")
        # The handshakes that are under way.
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listener.listen(limits.backlog)
        self._listen()

    def close(self) -> None:
        """Accept no more connections, and end the handshakes. Open connections stay."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when all handshakes have ended."""
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take one connection in this turn of the loop: between two of them, those that are open are served."""
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.exception("connection_not_accepted", reason=error.strerror)
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(_SHORTAGE_PAUSE_S, self._listen)
            return
        connection.setblocking(False)
        network = client_network(address[0], "", ())
        if not is_within(address[0], self._limits.trusted):
            try:
                self._networks.check(network)
            except Refusal as refusal:
                count_refusal(refusal.reason, self._surface)
                connection.close()
                return
        self._networks.came(network)
        task = self._loop.create_task(self._shake(connection))
        self._shaking[task] = connection
        task.add_done_callback(lambda done: self._over(done, network))

    async def _shake(self, connection: socket.socket) -> None:
        """Return when the protocol has the connection, or the connection is gone."""
        deadline_s = self._limits.deadline_s
        with contextlib.suppress(OSError):  # whoever does not shake hands is let go
            await self._loop.connect_accepted_socket(
                self._new_protocol, connection, ssl=self._context, ssl_handshake_timeout=deadline_s
            )

    def _over(self, task: asyncio.Task[None], network: str) -> None:
        connection = self._shaking.pop(task)
        self._networks.went(network)
        if task.cancelled():
            connection.close()
