"""Facts of the current call that are known everywhere below it: its request id, for logs, answers, further calls."""

from __future__ import annotations

import re
from contextvars import ContextVar

from oa_platform.system.ids import new_id

REQUEST_ID_KEY = "x-request-id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_request_id: ContextVar[str] = ContextVar("oa_request_id", default="")


def adopt_request_id(given: str | None) -> str:
    """Make `given` the current request id if it looks like one, else a new one; returns it."""
    request_id = given if given and _GIVEN_ID.fullmatch(given) else new_id("req")
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str:
    """The current request id; empty outside of a call."""
    return _request_id.get()
