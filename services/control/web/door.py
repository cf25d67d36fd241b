"""The web shell over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from oa_base.refusal import Refusal
from oa_platform.http.validators import is_unchanged
from services.control.web.app import Release, Releases
from services.control.web.domain import (
    File,
    asked_for,
    cache_control,
    content_security_policy,
    has_packings,
    media_type,
    packing_for,
)


class WebShell:
    """An ASGI application. `connects_to`: the origin of Khala, for the pages' policy."""

    def __init__(self, releases: Releases, connects_to: str) -> None:
        self._releases = releases
        self._policy = content_security_policy(connects_to)

    def keeps(self, path: str) -> bool:
        """Whether the present release or an earlier one here has a content-named file at `path`."""
        return self._releases.keeping(path.removeprefix("/")) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(Request(scope))
        opened = _OnceOpened(send)
        try:
            await answer(scope, receive, opened.send)
        except OSError:
            if opened.began:
                raise
            raise _gone() from None

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            message = "the web shell has files only; use GET"
            raise Refusal("method_not_allowed", message, metadata={"allow": "GET, HEAD"})
        release, file = self._found(request)
        coding, sent = packing_for(request.headers.get("accept-encoding", ""), file, release.files)
        headers = {
            "cache-control": cache_control(file.name),
            "content-security-policy": self._policy,
            "content-type": media_type(file.name),
            "etag": sent.etag,
        }
        if has_packings(file, release.files):
            headers["vary"] = "accept-encoding"
        if is_unchanged(request.headers.get("if-none-match", ""), sent.etag):
            return Response(status_code=304, headers=headers)
        if coding != "identity":
            headers["content-encoding"] = coding
        path = release.folder / sent.name
        return FileResponse(path, headers=headers, stat_result=_looked_at(path, sent))

    def _found(self, request: Request) -> tuple[Release, File]:
        path = unquote(request.scope["raw_path"].decode("latin-1"))
        older = self._releases.keeping(path.removeprefix("/"))
        if older is not None:
            return older, older.files[path.removeprefix("/")]
        present = self._releases.present
        page = "text/html" in request.headers.get("accept", "").lower()
        name = asked_for(path, page=page, files=present.files)
        if name is None:
            raise Refusal("not_found", "the web shell has no such file; load the page anew")
        return present, present.files[name]


def _looked_at(path: Path, file: File) -> os.stat_result:
    """The status of the file on disk. Raises Refusal `unavailable` when it is not the file that was verified."""
    try:
        found = path.stat()
    except OSError:
        found = None
    if found is None or found.st_size != file.size:
        raise _gone()
    return found


def _gone() -> Refusal:
    return Refusal("unavailable", "a file of the web shell is gone; its operator has to put the release back")


class _OnceOpened:
    """Holds back the head of an answer until its body comes, because a file may disappear after it was looked at."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.began = False

    async def send(self, message: Message) -> None:
        """Pass `message` on, with the head before the first part of the body."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        if self._head is not None:
            head, self._head, self.began = self._head, None, True
            await self._send(head)
        await self._send(message)
