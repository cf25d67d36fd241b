"""API key -> worker token, from control's public edge."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx
from google.protobuf.message import DecodeError

from oa_base.catalogue import ClientAction
from oa_base.environment import ApiKey, with_trust_advice
from oa_base.refusal import Refusal
from oa_wire.connect import PROTO, from_connect, is_proto
from oa_wire.http_dates import seconds_of
from oa_worker.sdk.transport.trust import tls_context
from oa_worker.sdk.transport.way import Way
from openagents.control.v1 import service_account_service_pb2 as pb

_EXCHANGE_PATH = "/openagents.control.v1.ServiceAccountService/ExchangeKey"
EXCHANGE_TIMEOUT_S = 10.0
"""Maximum time of an exchange in all. A worker waits for it, and its stream ends with its token."""
# A fresh token has not expired: a clock is wrong, here or there, and clocks get corrected.
OF_CLOCKS = {"token_expired", "token_too_old", "clock_skew"}


def may_pass(refusal: Refusal) -> bool:
    """Whether the refusal of a worker that has been attached may pass by itself. A proxy whose routes are being
    replaced answers for a while that there is no such method."""
    return refusal.info.action is ClientAction.RETRY or refusal.reason == "unknown_method"


@dataclass(frozen=True)
class WorkerToken:
    """A token for WorkerService, how long it lives from now on, and where to use it.

    `runtime_address` is an address like "127.0.0.1:9081", with grpcs:// before it for a port with TLS.
    """

    token: str
    lifetime_s: float
    runtime_address: str


class TokenSource(Protocol):
    """Where a worker gets its tokens."""

    async def get(self) -> WorkerToken:
        """Get a fresh token. Raises Refusal: `unavailable` is worth another try, `invalid_api_key` is not."""


class KeptTokens:
    """The newest token of a source. It is used again while it lives, so that a worker can attach without control."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._kept: WorkerToken | None = None
        self._ends_s = 0.0

    async def get(self, *, at_once: bool) -> WorkerToken:
        """Return a token with the rest of its life: the kept one if needed `at_once`, else a fresh one if possible.

        Raises Refusal.
        """
        kept = self._living()
        if at_once and kept is not None:
            return kept
        try:
            return await self.renew()
        except Refusal as refusal:
            kept = self._living()
            if kept is None or not may_pass(refusal):
                raise
            return kept

    async def renew(self) -> WorkerToken:
        """Get a fresh token. Raises Refusal, and then keeps the current one."""
        fresh = await self._source.get()
        self._kept, self._ends_s = fresh, time.monotonic() + fresh.lifetime_s
        return fresh

    def drop(self) -> None:
        """Drop the kept token, which was refused."""
        self._kept = None

    def _living(self) -> WorkerToken | None:
        left_s = self._ends_s - time.monotonic()
        return None if self._kept is None or left_s <= 0 else replace(self._kept, lifetime_s=left_s)


class ApiKeyTokens:
    """Exchanges a service account's API key at `control_url` for worker tokens.

    `runtime_address` overrides the address that control gives, for workers behind another network. `proxy` is the URL
    of an HTTP proxy for all but loopback; the environment's are not used. `ca_file` holds certificates of authorities
    (PEM) that are trusted besides the public ones. `api_key_file`: a file that has the key, too, and will have the next
    one when the key is rotated; it is read for each exchange.
    """

    def __init__(
        self,
        control_url: str,
        api_key: str,
        *,
        runtime_address: str = "",
        proxy: str = "",
        ca_file: Path | None = None,
        api_key_file: Path | None = None,
    ) -> None:
        """Raises Refusal(invalid_setting) for a `ca_file` that can't be used."""
        is_plain = urlsplit(control_url).scheme == "http" and ca_file is None
        self._trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else tls_context(ca_file)
        self._url = control_url.rstrip("/") + _EXCHANGE_PATH
        self._api_key = ApiKey(api_key, api_key_file)
        self._runtime_address = runtime_address
        self._way = Way(proxy, urlsplit(control_url).hostname or "")

    async def get(self) -> WorkerToken:
        """See `TokenSource`."""
        request = pb.ExchangeKeyRequest(api_key=self._api_key.current(), use=pb.TOKEN_USE_WORKER)
        answer = await self._post(request.SerializeToString())
        try:
            response = pb.ExchangeKeyResponse.FromString(answer.content)
        except DecodeError:
            raise self._is_not_control() from None
        address = self._runtime_address or response.runtime_grpc_address
        if not response.token or not address:
            message = "control gave no worker token or no address of the runtime; check its settings"
            raise Refusal("unavailable", message)
        # Both times are control's, so their difference does not depend on our clock.
        lifetime_s = response.expire_time.ToMilliseconds() / 1000 - _made_at_s(answer)
        return WorkerToken(response.token, max(1.0, lifetime_s), address)

    async def _post(self, body: bytes) -> httpx.Response:
        headers = {"Content-Type": PROTO, "Connect-Protocol-Version": "1"}
        try:
            # A transport of our own, because httpx would otherwise use the environment's proxies.
            transport = httpx.AsyncHTTPTransport(verify=self._trust, proxy=self._way.proxy or None)
            # The client's own time limit is one for each read.
            async with (
                asyncio.timeout(EXCHANGE_TIMEOUT_S),
                httpx.AsyncClient(timeout=EXCHANGE_TIMEOUT_S, transport=transport) as client,
            ):
                answer = await client.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            said = with_trust_advice(str(error) or type(error).__name__)
            message = f"control can't be reached at {self._url}{self._way.words} ({said}); is it running?"
            raise Refusal("unavailable", message) from None
        if answer.status_code != httpx.codes.OK:
            raise from_connect(answer.status_code, answer.content)
        if not is_proto(answer.headers.get("content-type", "")):
            raise self._is_not_control()
        return answer

    def _is_not_control(self) -> Refusal:
        return Refusal("unavailable", f"{self._url} did not answer as control does; check the address")


def _made_at_s(answer: httpx.Response) -> float:
    made_at_s = seconds_of(answer.headers.get("date", ""))
    return time.time() if made_at_s is None else made_at_s
