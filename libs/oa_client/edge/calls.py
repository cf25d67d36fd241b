"""The public edge: Connect unary calls with protobuf bodies; errors come back as Refusals."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.backoff import Backoff
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.refusals import retry_after_ms
from oa_client.transport import Http, HttpAnswer
from oa_wire.connect import PROTO, from_connect, is_proto
from oa_wire.http_dates import seconds_of

M = TypeVar("M", bound=Message)
ATTEMPTS = 5
"""Maximum number of attempts of a call that may safely take effect twice, when a service is unavailable or busy."""
MAX_RETRY_AFTER_MS = 3_000
"""Maximum wait that a service may ask for. If it asks for a longer one, the caller gets the refusal."""
DATE_AGE_S = 2.0
"""Maximum age of a Date in an answer: it has whole seconds, and the edge writes it once a second. With it, tokens seem
to end early rather than late."""
RETRY = Backoff(first_ms=200, max_ms=MAX_RETRY_AFTER_MS)
"""The wait between attempts if the service names none, with full jitter."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and the person and org that it is for; these are empty if the source has tokens of one holder only."""

    value: str = field(repr=False)
    user_id: str = ""
    org_id: str = ""


class AccessTokens(Protocol):
    """The source of the access tokens for calls."""

    @property
    def renewed_after(self) -> frozenset[str]:
        """The reasons of a refused token for which another one may still be accepted."""

    async def current(self) -> AccessToken:
        """Return a token that should still be valid. Raises Refusal if nobody is signed in."""

    async def renewed(self, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, which was refused for one of the reasons in `renewed_after`.

        Raises Refusal if there is none, and `org_changed` if the client acts in another org by now, or as another
        person.
        """


class Edge:
    """Calls methods at one base URL ("http://127.0.0.1:8080")."""

    def __init__(
        self, base_url: str, http: Http, client_build_id: str, *, now: Callable[[], float] = time.time
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.now = now
        self._ahead_s = 0.0
        """How far the edge's clock is ahead of ours at most, according to its last answer."""
        self._http = http
        self._headers = {
            "Content-Type": PROTO,
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
        """Call "package.Service/Method". With `tokens`, the call is signed in, and a refused token is renewed once if
        that may help. No attempt is made in another org, or as another person, than the first: Refusal `org_changed`.

        `attempts`: maximum number of attempts, made while the catalogue says that the same request may work later; more
        than one only for calls that may safely take effect twice. If the edge does not answer at all within the
        transport's timeout, there is no further attempt. `timeout_ms`: the edge gives up after this time.
        Raises Refusal: the service's own, or `unavailable`, `deadline_exceeded` if the edge does not answer.
        """
        token = _CallToken(tokens)
        for attempt in range(1, attempts):
            answer: HttpAnswer | None = None
            try:
                answer = await self._posted(method, request, token, timeout_ms)
                return _decoded(answer, response, self.base_url)
            except Refusal as refusal:
                delay_ms = refusal.retry_after_ms or RETRY.wait_ms(attempt - 1, random.random())
                if refusal.info.action is not ClientAction.RETRY or delay_ms > MAX_RETRY_AFTER_MS:
                    raise
                if answer is None and refusal.reason == "deadline_exceeded":
                    raise  # the caller has waited for the whole timeout that the refusal states, in silence
                await asyncio.sleep(delay_ms / 1000)
        return _decoded(await self._posted(method, request, token, timeout_ms), response, self.base_url)

    def by_our_clock(self, moment: Timestamp) -> float:
        """Convert a moment of the edge's clock to ours, in seconds since 1970. Our clock may be wrong by more than a
        token's lifetime: compared with it, every token would have expired."""
        return moment.ToMilliseconds() / 1000 - self._ahead_s

    def now_at_edge(self) -> float:
        """Return what the edge's clock says now at most, in seconds since 1970, according to its last answer."""
        return self.now() + self._ahead_s

    async def _posted(self, method: str, request: Message, token: _CallToken, timeout_ms: int | None) -> HttpAnswer:
        answer = await self._post(method, request, await token.value(), timeout_ms)
        if await token.is_renewed_after(_unauthenticated(answer)):
            answer = await self._post(method, request, await token.value(), timeout_ms)
        return answer

    async def _post(self, method: str, request: Message, token: str, timeout_ms: int | None) -> HttpAnswer:
        headers = dict(self._headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if timeout_ms is not None:
            headers["Connect-Timeout-Ms"] = str(timeout_ms)
        answer = await self._http.post(f"{self.base_url}/{method}", request.SerializeToString(), headers)
        if (made_at_s := seconds_of(answer.headers.get("date", ""))) is not None:
            self._ahead_s = made_at_s + DATE_AGE_S - self.now()
        return answer


class _CallToken:
    """The token of one call. All attempts of the call have it, because another process may switch the org meanwhile."""

    def __init__(self, tokens: AccessTokens | None) -> None:
        self._tokens = tokens
        self._token: AccessToken | None = None

    async def value(self) -> str:
        """Return the token; empty for a call that is not signed in. Raises Refusal."""
        if self._tokens is None:
            return ""
        if self._token is None:
            self._token = await self._tokens.current()
        return self._token.value

    async def is_renewed_after(self, reason: str) -> bool:
        """Return whether there is another token for the call, which was refused for `reason`. Raises Refusal."""
        if self._tokens is None or self._token is None or reason not in self._tokens.renewed_after:
            return False
        renewed = await self._tokens.renewed(self._token)
        # The caller is told that the org has changed, and the next call goes to the new org.
        if reason == "org_changed":
            return False
        self._token = renewed
        return True


def _unauthenticated(answer: HttpAnswer) -> str:
    return from_connect(answer.status, answer.body).reason if answer.status == 401 else ""


def _decoded(answer: HttpAnswer, response: type[M], base_url: str) -> M:
    if answer.status != 200:
        raise from_connect(answer.status, answer.body, retry_after_ms(answer.headers.get("retry-after", "")))
    with contextlib.suppress(DecodeError):
        if is_proto(answer.headers.get("content-type", "")):
            return response.FromString(answer.body)
    # Not only a wrong address: a network that wants a sign-in of its own answers so, too, until it has one.
    raise Refusal("unavailable", f"what answers at {base_url} does not speak as the edge does; check OA_CONTROL_URL")
