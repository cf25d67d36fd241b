"""How a client reads a refusal: whether only a new sign-in helps, and how long to wait."""

from __future__ import annotations

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal

_MAX_RETRY_AFTER_DIGITS = 6


def needs_sign_in(refusal: Refusal) -> bool:
    """Whether only a new sign-in helps."""
    return refusal.info.action is ClientAction.REAUTHENTICATE


def retry_after_ms(header: str) -> int:
    """Return the wait in the value of a Retry-After header, in milliseconds; 0 for an empty value, and for one that is
    no number of seconds or makes no sense."""
    is_seconds = header.isascii() and header.isdigit() and len(header) <= _MAX_RETRY_AFTER_DIGITS
    return int(header) * 1000 if is_seconds else 0
