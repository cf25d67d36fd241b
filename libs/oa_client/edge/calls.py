"""The public edge: Connect unary calls with protobuf bodies; errors come back as Refusals."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.backoff import Backoff
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.refusals import retry_after_ms
from oa_client.transport import Http, HttpAnswer
from oa_wire.connect import from_connect
from oa_wire.http_dates import seconds_of

M = TypeVar("M", bound=Message)
ATTEMPTS = 5
"""How often a call that may take effect twice is made in all, when a service is away or busy."""
MAX_RETRY_AFTER_MS = 3_000
"""A service that asks for a longer wait is not waited for: the caller is told."""
RETRY = Backoff(first_ms=200, max_ms=MAX_RETRY_AFTER_MS)
"""The wait between attempts, where the service names none; with full jitter."""


class AccessTokens(Protocol):
    """Where calls get their access token."""

    @property
    def renewed_after(self) -> frozenset[str]:
        """The reasons for which another token may be let in where one was refused."""

    async def current(self) -> str:
        """A token that should still be good. Raises Refusal when nobody is signed in."""

    async def renewed(self, rejected: str) -> str:
        """Another token than `rejected`, which was refused for one of these reasons.

        Raises Refusal when there is none, and `org_changed` when it is one of another org.
        """


class Edge:
    """Calls methods at one base URL ("http://127.0.0.1:8080")."""

    def __init__(
        self, base_url: str, http: Http, client_build_id: str, *, now: Callable[[], float] = time.time
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.now = now
        self._ahead_s = 0.0
        """By how much the edge's clock is ahead of ours, as far as its last answer told."""
        self._http = http
        self._headers = {
            "Content-Type": "application/proto",
            "Connect-Protocol-Version": "1",
            "X-OA-Client-Build": client_build_id,
        }

    async def call(
        self,
        method: str,
        request: Message,
        response: type[M],
        tokens: AccessTokens | None = None,
        *,
        attempts: int = 1,
        timeout_ms: int | None = None,
    ) -> M:
        """Call "package.Service/Method". With `tokens`: signed in; a refused token is renewed once if that may help.
        Nothing is sent with a token of another org than the first one's: Refusal `org_changed`.

        `attempts`: how often in all, while the catalogue says that the same request may work later; more than one
        only for what may take effect twice. `timeout_ms`: after this time the edge gives up.
        Raises Refusal: the service's own, or `unavailable`, `deadline_exceeded` for the way there.
        """
        for attempt in range(1, attempts):
            try:
                return await self._call_once(method, request, response, tokens, timeout_ms)
            except Refusal as refusal:
                delay_ms = refusal.retry_after_ms or RETRY.wait_ms(attempt - 1, random.random())
                if refusal.info.action is not ClientAction.RETRY or delay_ms > MAX_RETRY_AFTER_MS:
                    raise
                await asyncio.sleep(delay_ms / 1000)
        return await self._call_once(method, request, response, tokens, timeout_ms)

    def by_our_clock(self, moment: Timestamp) -> float:
        """When a moment of the edge's clock is by ours, in seconds since 1970. Ours may be wrong by more than a token
        lives: compared with it, each one would have expired."""
        return moment.ToMilliseconds() / 1000 - self._ahead_s

    async def _call_once(
        self,
        method: str,
        request: Message,
        response: type[M],
        tokens: AccessTokens | None,
        timeout_ms: int | None,
    ) -> M:
        if tokens is None:
            return _decoded(await self._post(method, request, "", timeout_ms), response, self.base_url)
        token = await tokens.current()
        answer = await self._post(method, request, token, timeout_ms)
        reason = _unauthenticated(answer)
        if reason in tokens.renewed_after:
            renewed = await tokens.renewed(token)
            # What was meant for one org is not done in another: the caller is told, and the next call goes there.
            if reason != "org_changed":
                answer = await self._post(method, request, renewed, timeout_ms)
        return _decoded(answer, response, self.base_url)

    async def _post(self, method: str, request: Message, token: str, timeout_ms: int | None) -> HttpAnswer:
        headers = dict(self._headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if timeout_ms is not None:
            headers["Connect-Timeout-Ms"] = str(timeout_ms)
        answer = await self._http.post(f"{self.base_url}/{method}", request.SerializeToString(), headers)
        if (made_at_s := seconds_of(answer.headers.get("date", ""))) is not None:
            self._ahead_s = made_at_s - self.now()
        return answer


def _unauthenticated(answer: HttpAnswer) -> str:
    return from_connect(answer.status, answer.body).reason if answer.status == 401 else ""


def _decoded(answer: HttpAnswer, response: type[M], base_url: str) -> M:
    if answer.status != 200:
        raise from_connect(answer.status, answer.body, retry_after_ms(answer.headers.get("retry-after", "")))
    try:
        return response.FromString(answer.body)
    except DecodeError:
        message = f"what answers at {base_url} does not speak as the edge does; check OA_CONTROL_URL"
        raise Refusal("malformed_message", message) from None
