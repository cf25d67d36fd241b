"""Sources of public keys: control's JWK set over HTTP, kept in memory and in a file; or keys given in advance.

    keys = await process.enter(JwksCache(settings.jwks, clock, protection=process.protection))
    verifier = TokenVerifier(keys, clock)

The file makes tokens verifiable after a restart while control is down (invariant 10).
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.keys import from_jwks, thumbprint, to_jwks
from oa_platform.config.shared import JwksSettings
from oa_platform.health.clock_watch import CLOCK_HEADER, CONTROL, ClockWatch, Moment
from oa_platform.health.failures import surviving
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.telemetry.metrics import JWKS_FETCHES, show_at_zero
from oa_platform.tls.protection import PLAIN, Protection
from oa_wire.strict.text import read_json

JWKS_PATH = "/.well-known/jwks.json"
MAX_JWKS_BYTES = 256 * 1024
_log = structlog.get_logger(__name__)


class StaticKeys:
    """Keys that are known in advance: control's own, and tests'."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {thumbprint(key): key for key in keys}

    async def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """The key with this id."""
        return self._keys.get(kid)


class JwksCache:
    """Control's keys, refreshed periodically, when an unknown key id appears, and when our clock has stepped (but not
    more often than the limit)."""

    def __init__(
        self,
        settings: JwksSettings,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
        watch: ClockWatch | None = None,
        protection: Protection = PLAIN,
    ) -> None:
        """`watch` is told control's time, which comes with the keys.

        Raises Refusal(invalid_setting) for a URL that may not be called without TLS.
        """
        protection.check_url(settings.control_url, "OA_CONTROL_URL")
        self._settings = settings
        self._clock = clock
        self._watch = watch
        self._transport = transport
        self._protection = protection
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._lock = asyncio.Lock()
        self._tried_at = float("-inf")
        self._reached = False
        self._task: asyncio.Task[None] | None = None
        show_at_zero(JWKS_FETCHES, ("ok", "failed"))

    async def __aenter__(self) -> Self:
        """Read the file, try to fetch, and keep refreshing. Control need not be up."""
        self._keys = self._read_file()
        await self._refresh()
        self._task = asyncio.create_task(self._keep_fresh(), name="jwks-refresh")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def check(self) -> None:
        """Readiness: raises Refusal(unavailable) while there are no keys at all."""
        if not self._keys:
            where = self._settings.control_url
            raise Refusal("unavailable", f"the keys of control were never fetched from {where}; check that it is up")

    async def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """The key with this id; None when control has none; Refusal(unavailable) when control can't be asked."""
        if kid not in self._keys:
            await self._refresh()
        if kid not in self._keys and not self._reached:
            raise Refusal(
                "unavailable",
                "the token's key is unknown, and control can't be asked for it now; try again",
            )
        return self._keys.get(kid)

    async def _keep_fresh(self) -> None:
        while True:
            await self._until_due()
            with surviving(_log, "jwks_not_refreshed"):
                await self._refresh()

    async def _until_due(self) -> None:
        """Wait for the next refresh. It is due early while there are no keys, because nothing can be verified then, and
        after a step of our clock, because control's time came with the keys."""
        due_s = self._clock.monotonic() + self._settings.refresh_interval_s
        while (left_s := due_s - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left_s, self._settings.min_refresh_interval_s))
            if not self._keys or (self._watch and self._watch.is_outdated(CONTROL)):
                return

    async def _refresh(self) -> None:
        """Fetch once for all waiting callers, unless it was tried a moment ago. Sets whether control was reached."""
        async with self._lock:
            now = self._clock.monotonic()
            if now - self._tried_at < self._settings.min_refresh_interval_s:
                return
            self._reached = False  # also if the fetch is canceled
            try:
                self._keys = await self._fetch()
                self._reached = True
                JWKS_FETCHES.labels("ok").inc()
            except (httpx.HTTPError, ValueError, TimeoutError) as error:
                JWKS_FETCHES.labels("failed").inc()
                _log.warning("jwks_fetch_failed", url=self._settings.control_url, error=type(error).__name__)
                return
            finally:
                # The callers that waited meanwhile take its outcome, however long it took.
                self._tried_at = self._clock.monotonic()
            self._write_file()

    def _client(self) -> httpx.AsyncClient:
        """A client for one fetch, with the current authorities, because they change with the files."""
        timeout_s, trust = self._settings.fetch_timeout_s, self._protection.trust_for(self._settings.control_url)
        return httpx.AsyncClient(timeout=timeout_s, transport=self._transport, verify=trust, trust_env=False)

    async def _fetch(self) -> Mapping[str, Ed25519PublicKey]:
        asked = self._watch.asking() if self._watch else None
        url = f"{self._settings.control_url}{JWKS_PATH}"
        # The client's own time limit is one for each read.
        async with (
            asyncio.timeout(self._settings.fetch_timeout_s),
            self._client() as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            if self._watch and asked:
                _tell_time(self._watch, asked, response)
            keys = from_jwks(read_json(await _content(response)))
        if not keys:
            raise ValueError("the JWK set has no key")
        return keys

    def _read_file(self) -> Mapping[str, Ed25519PublicKey]:
        path = self._settings.cache_file
        if path is None:
            return {}
        try:
            return from_jwks(read_json(path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("jwks_file_unreadable", path=str(path), error=type(error).__name__)
            return {}

    def _write_file(self) -> None:
        if self._settings.cache_file is None:
            return
        try:
            _replace_file(self._settings.cache_file, json.dumps(to_jwks(self._keys.values())))
        except OSError as error:
            _log.warning("jwks_file_not_written", path=str(self._settings.cache_file), error=type(error).__name__)


async def _content(response: httpx.Response) -> bytes:
    """The body. Raises ValueError as soon as it is too large."""
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MAX_JWKS_BYTES:
            raise ValueError("the JWK set is too large")
    return bytes(content)


def _tell_time(watch: ClockWatch, asked: Moment, response: httpx.Response) -> None:
    text = response.headers.get(CLOCK_HEADER, "")
    # An answer that a cache on the way has kept has the time at which it was made.
    if text.isascii() and text.isdigit() and len(text) < 16 and "age" not in response.headers:
        watch.told(CONTROL, asked, int(text))


def _replace_file(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old or the new content, and nobody else can put keys there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
