"""API keys of service accounts: `oak_` and 32 random bytes in base64url."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

API_KEY_BYTES = 32
_KEY = re.compile(r"oak_[A-Za-z0-9_-]{43}")


def api_key(random_bytes: bytes) -> str:
    """The key made of API_KEY_BYTES random bytes."""
    return "oak_" + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def is_api_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def api_key_hash(hmac_key: bytes, key: str) -> bytes:
    """What is stored of a key, and looked up by."""
    return hmac.digest(hmac_key, f"api-key:{key}".encode(), hashlib.sha256)
