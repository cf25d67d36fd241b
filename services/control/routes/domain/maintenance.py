"""Maintenance, and the signed bypass that lets operators in while it lasts."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from services.control.routes.limits import DEFAULT_RETRY_MS

DEFAULT_NOTICE = "This site is closed for maintenance."
_PURPOSE = b"openagents maintenance bypass"
_MAX_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A closed site: the number of this maintenance, when it began, and what people are told."""

    number: int
    since: datetime
    notice: str = DEFAULT_NOTICE
    retry_after_ms: int = DEFAULT_RETRY_MS


def bypass_of(key: bytes, number: int, expires_s: int) -> str:
    """Return a bypass for the maintenance with this number, valid until a time in seconds since 1970."""
    return f"{expires_s}.{_mac(key, number, expires_s)}"


def is_bypass(key: bytes, maintenance: Maintenance, text: str, now_s: float) -> bool:
    """Whether a text is a bypass for this maintenance that has not expired."""
    expires, _, mac = text.partition(".")
    if len(text) > _MAX_LENGTH or not (expires.isascii() and expires.isdigit() and mac.isascii()):
        return False
    good = hmac.compare_digest(mac, _mac(key, maintenance.number, int(expires)))
    return good and now_s < int(expires)


def _mac(key: bytes, number: int, expires_s: int) -> str:
    own_key = hmac.digest(key, _PURPOSE, "sha256")
    said = f"{number} {expires_s}".encode()
    return hmac.new(own_key, said, hashlib.sha256).hexdigest()
