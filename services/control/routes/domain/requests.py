"""What the headers of a web request say: what it asks for, who sends it, and which of our cookies it carries."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.control.routes.domain.groups import Side

BYPASS_HEADER = "x-oa-bypass"
BYPASS_PARAMETER = "oa-bypass"
BYPASS_COOKIE = "__Host-oa-bypass"
CHOICE_HEADER = "x-oa-side"
CHOICE_COOKIE = "oa-side"
COHORT_COOKIE = "oa-cohort"
"""Holds a random text that identifies a browser, for the split and for nothing else."""
COHORT_S = 365 * 86_400
"""How long a browser keeps the cohort cookie."""
FOREIGN = "foreign"
"""Set in a request's state if the answer is a page of the legacy side, which has a policy of its own."""
CLIENT_WAS_SLOW = "client_was_slow"
"""Set in a request's state if its client let it run out of time, which says nothing about the side."""
_COHORT = re.compile(r"[A-Za-z0-9_-]{16,64}")
_OURS = frozenset({BYPASS_COOKIE, CHOICE_COOKIE, COHORT_COOKIE})


def wants_page(method: str, headers: Mapping[str, str]) -> bool:
    """Whether the request is a navigation, whose answer a browser shows as a page."""
    return method in ("GET", "HEAD") and "text/html" in headers.get("accept", "").lower()


def choice_of(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Side | None:
    """The side that the person has chosen; the header takes precedence over the cookie. None without a valid choice."""
    for given in (headers.get(CHOICE_HEADER), cookies.get(CHOICE_COOKIE)):
        if given in (Side.SHELL, Side.LEGACY):
            return Side(given)
    return None


def cohort_of(cookies: Mapping[str, str]) -> str:
    """The cohort id of the browser; empty if it has none that control could have made."""
    given = cookies.get(COHORT_COOKIE, "")
    return given if _COHORT.fullmatch(given) else ""


def without_our_cookies(header: str) -> str:
    """Return a Cookie header without the cookies that are only for this service; empty when none is left."""
    kept = [part.strip() for part in header.split(";") if part.split("=")[0].strip() not in _OURS]
    return "; ".join(part for part in kept if part)
