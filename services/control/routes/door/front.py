"""Web requests: each goes to the side given by its group, its person's choice or its person's cohort."""

from __future__ import annotations

import secrets
import time
from typing import Protocol

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oa_base.refusal import Refusal
from services.control.routes import metrics
from services.control.routes.app.book import RouteBook
from services.control.routes.app.canaries import Canaries
from services.control.routes.domain.groups import Group, Side, checked_path
from services.control.routes.domain.requests import CLIENT_WAS_SLOW, COHORT_COOKIE, COHORT_S, choice_of, cohort_of

_COHORT_BYTES = 16
_FAILED = 500


class Shell(Protocol):
    """The built-in shell."""

    def keeps(self, path: str) -> bool:
        """Whether a path names a file of this shell by its content. A page that has begun to load needs such a file,
        whatever has been decided since."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Front:
    """Divides web requests between the sides. At least one side must be given."""

    def __init__(self, book: RouteBook, canaries: Canaries, shell: Shell | None, legacy: ASGIApp | None) -> None:
        if shell is None and legacy is None:
            raise ValueError("a front needs a side")
        self._book = book
        self._canaries = canaries
        self._shell = shell
        self._apps: dict[Side, ASGIApp] = {}
        if shell is not None:
            self._apps[Side.SHELL] = shell
        if legacy is not None:
            self._apps[Side.LEGACY] = legacy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = checked_path(scope["raw_path"])
        request = Request(scope)
        group = self._book.decided.groups.of_path(path)
        divides = len(self._apps) > 1 and group is not None and group.pinned is None
        if self._shell is not None and self._shell.keeps(path):
            divides = False
            side, new_cohort = Side.SHELL, ""
        elif group is not None and divides:
            side, new_cohort = _divided(group, request)
        else:
            side, new_cohort = self._undivided(group), ""
        request.state.method = f"web.{side}"
        answer = _Answer(send, divides=divides, new_cohort=new_cohort)
        try:
            await self._apps[side](scope, receive, answer.send)
        except Refusal as refusal:
            answer.decided(refusal.info.http_status)
            raise
        finally:
            answer.count(side)
            if group is not None and divides and not scope["state"].get(CLIENT_WAS_SLOW):
                self._canaries.take(group.name, side, answer.status, answer.took_ms)

    def _undivided(self, group: Group | None) -> Side:
        """The side for everybody. A path that is in no group stays where it was before there was a shell."""
        if group is not None and group.pinned in self._apps:
            return group.pinned
        return Side.LEGACY if Side.LEGACY in self._apps else Side.SHELL


def _divided(group: Group, request: Request) -> tuple[Side, str]:
    """Return the side, and the cohort id to give to the browser; empty for none."""
    choice = choice_of(request.headers, request.cookies)
    person = cohort_of(request.cookies)
    if choice is not None or person:
        return group.side_for(person, choice), ""
    person = secrets.token_urlsafe(_COHORT_BYTES)
    return group.side_for(person, None), person


class _Answer:
    """The answer to the client: measured, and marked with what it depended on."""

    def __init__(self, send: Send, *, divides: bool, new_cohort: str) -> None:
        self._send = send
        self._divides = divides
        self._new_cohort = new_cohort
        self._began = time.perf_counter()
        self.status = _FAILED
        self.took_ms = 0.0

    async def send(self, message: Message) -> None:
        """Pass a message on to the client."""
        if message["type"] == "http.response.start":
            self.decided(message["status"])
            self._mark(MutableHeaders(scope=message))
        await self._send(message)

    def decided(self, status: int) -> None:
        """Record the status, and the time that it took."""
        self.status = status
        self.took_ms = (time.perf_counter() - self._began) * 1000

    def _mark(self, headers: MutableHeaders) -> None:
        if self._divides:
            headers.add_vary_header("cookie, x-oa-side")
        if self._new_cohort:
            cookie = f"{COHORT_COOKIE}={self._new_cohort}; Path=/; Max-Age={COHORT_S}; HttpOnly; SameSite=Lax"
            headers.append("set-cookie", cookie)

    def count(self, side: Side) -> None:
        """Count the answer in the metrics."""
        took_ms = self.took_ms or (time.perf_counter() - self._began) * 1000
        metrics.REQUESTS.labels(side.value, f"{self.status // 100}xx").inc()
        metrics.FIRST_BYTE.labels(side.value).observe(took_ms / 1000)
