"""The first check on the public edge: whether the site is open."""

from __future__ import annotations

import html
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JWKS_PATH
from services.control.routes.app.book import RouteBook
from services.control.routes.domain.maintenance import Maintenance, is_bypass
from services.control.routes.domain.requests import BYPASS_COOKIE, BYPASS_HEADER, BYPASS_PARAMETER, wants_page

_OPEN_PATHS = frozenset({JWKS_PATH.encode()})
"""Paths that other services need from this one, whoever is let in."""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Maintenance</title><h1>Maintenance</h1><p>{notice}</p></html>
"""


class MaintenanceDoor:
    """Lets in everybody while the site is open, and only clients with a bypass while it is closed."""

    def __init__(self, app: ASGIApp, book: RouteBook, clock: Clock, hmac_key: bytes) -> None:
        self._app = app
        self._book = book
        self._clock = clock
        self._hmac_key = hmac_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        maintenance = self._book.decided.maintenance
        if maintenance is None or scope["raw_path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        bypass = request.query_params.get(BYPASS_PARAMETER, "")
        if self._is_bypass(maintenance, bypass) and request.method == "GET":
            await _remember(request, bypass)(scope, receive, send)
        elif self._is_bypass(maintenance, request.headers.get(BYPASS_HEADER, "")) or self._is_bypass(
            maintenance, request.cookies.get(BYPASS_COOKIE, "")
        ):
            await self._app(scope, receive, send)
        else:
            await self._closed(request, maintenance)(scope, receive, send)

    def _is_bypass(self, maintenance: Maintenance, text: str) -> bool:
        return is_bypass(self._hmac_key, maintenance, text, self._clock.time())

    @staticmethod
    def _closed(request: Request, maintenance: Maintenance) -> Response:
        """Return a page for people. Raises Refusal `in_maintenance` for programs."""
        request.state.method = "maintenance"
        notice = maintenance.notice
        refusal = Refusal("in_maintenance", notice, retry_after_ms=maintenance.retry_after_ms)
        if not wants_page(request.method, request.headers):
            raise refusal
        headers = {"retry-after": str(refusal.retry_hint_s), "vary": "accept"}
        page = _PAGE.format(notice=html.escape(notice))
        return Response(page, refusal.info.http_status, headers, "text/html; charset=utf-8")


def _remember(request: Request, bypass: str) -> Response:
    """Redirect to the same page without the secret in its URL. A cookie keeps that until the browser is closed."""
    request.state.method = "maintenance"
    # The other parameters stay as they were written.
    parts = request.scope["query_string"].decode("latin-1").split("&")
    query = "&".join(part for part in parts if unquote_plus(part.partition("=")[0]) != BYPASS_PARAMETER)
    # One slash at the front, so that no path can name another host.
    path = "/" + request.scope["raw_path"].decode("latin-1").lstrip("/\\")
    response = RedirectResponse(f"{path}?{query}" if query else path, 303)
    response.set_cookie(BYPASS_COOKIE, bypass, path="/", secure=True, httponly=True, samesite="lax")
    return response
