"""What a web request says by its headers: what it wants, who it is, and what it carries of ours."""

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
"""Who a browser is, for the split and for nothing else: a random text."""
COHORT_S = 365 * 86_400
"""How long a browser keeps it."""
FOREIGN = "foreign"
"""Set in a request's state where the answer is a page of the legacy side, which has a policy of its own."""
_COHORT = re.compile(r"[A-Za-z0-9_-]{16,64}")
_OURS = frozenset({BYPASS_COOKIE, CHOICE_COOKIE, COHORT_COOKIE})


def wants_page(method: str, headers: Mapping[str, str]) -> bool:
    """Whether it is a navigation: what a browser shows as a page."""
    return method in ("GET", "HEAD") and "text/html" in headers.get("accept", "").lower()


def choice_of(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Side | None:
    """The side that this person has chosen; the header counts before the cookie. None for no side of ours."""
    for given in (headers.get(CHOICE_HEADER), cookies.get(CHOICE_COOKIE)):
        if given in (Side.SHELL, Side.LEGACY):
            return Side(given)
    return None


def cohort_of(cookies: Mapping[str, str]) -> str:
    """The cohort id of this browser; empty for none that we would have made."""
    given = cookies.get(COHORT_COOKIE, "")
    return given if _COHORT.fullmatch(given) else ""


def without_our_cookies(header: str) -> str:
    """A Cookie header without those that only this service is to see; empty when none is left."""
    kept = [part.strip() for part in header.split(";") if part.split("=")[0].strip() not in _OURS]
    return "; ".join(part for part in kept if part)
