"""What a client that has kept an answer asks: whether it is still the same (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib


def etag_of(content: bytes) -> str:
    """A strong validator: it identifies the content."""
    return f'"{hashlib.sha256(content).hexdigest()}"'


def is_unchanged(if_none_match: str, etag: str) -> bool:
    """Whether the client has this content."""
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in known or known == {"*"}
