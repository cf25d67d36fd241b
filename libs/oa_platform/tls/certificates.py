"""A pair that follows its files: a new one is taken up while the process runs; if it is bad, the old one stays in use.

Servers and clients look at `current` for each new connection, so a change drops no connection.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.telemetry.metrics import TLS_NOT_AFTER, TLS_RELOADS, show_at_zero
from oa_platform.tls.pair import Contents, Pair, PairFiles, pair_of, read_contents

_log = structlog.get_logger(__name__)


class Certificates:
    """Use it as an async context manager."""

    current: Pair
    """The pair for the next connection. It is set when the context is entered."""

    def __init__(self, files: PairFiles, clock: Clock, reload_interval_ms: int) -> None:
        self._files = files
        self._clock = clock
        self._interval_s = reload_interval_ms / 1000
        self._contents: Contents | None = None
        self._said = ""
        self._task: asyncio.Task[None] | None = None
        show_at_zero(TLS_RELOADS, (files.name,), ("ok", "failed"))

    async def __aenter__(self) -> Self:
        """Read the files, and watch them from now on. Raises Refusal(invalid_setting)."""
        await self._take(await asyncio.to_thread(read_contents, self._files))
        self._task = asyncio.create_task(self._watch(), name=f"certificates-{self._files.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def look(self) -> None:
        """Take up changed files, if they can be used."""
        name = self._files.name
        try:
            contents = await asyncio.to_thread(read_contents, self._files)
            if contents != self._contents:
                await self._take(contents)
                TLS_RELOADS.labels(name, "ok").inc()
            self._said = ""
        except Refusal as refusal:
            TLS_RELOADS.labels(name, "failed").inc()
            if str(refusal) != self._said:  # once, and not at every look
                _log.error("certificate_not_taken", certificate=name, field=refusal.field, why=refusal.message)
            self._said = str(refusal)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the next look may succeed, and without one nobody would notice
                TLS_RELOADS.labels(self._files.name, "failed").inc()
                _log.error("certificate_not_looked_at", certificate=self._files.name, exc_info=error)

    async def _take(self, contents: Contents) -> None:
        pair = await asyncio.to_thread(pair_of, self._files, contents, self._clock.now())
        self.current, self._contents = pair, contents
        TLS_NOT_AFTER.labels(self._files.name).set(pair.not_after.timestamp())
        _log.info("certificate_in_use", certificate=self._files.name, not_after=pair.not_after.isoformat())


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """A context for servers that keep one forever: each handshake is made with the pair that is current then."""
    context = certificates.current.server

    def with_current(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificates.current.server

    context.sni_callback = with_current
    return context
