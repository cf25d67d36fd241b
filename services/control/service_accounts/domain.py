"""Service accounts, and their API keys: `oak_` and 32 random bytes in base64url."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from oa_base.identity import PrincipalKind
from services.control.policy.domain import SERVICE_ACCOUNT_SCOPES, StandingPrincipal

API_KEY_BYTES = 32
_KEY = re.compile(r"oak_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """How a worker or a script signs in for an org."""

    service_account_id: str
    org_id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def principal(self) -> StandingPrincipal:
        """The account as a caller of the edge."""
        scopes = SERVICE_ACCOUNT_SCOPES
        kind = PrincipalKind.SERVICE_ACCOUNT
        return StandingPrincipal(kind, self.service_account_id, self.org_id, scopes, standing=scopes)


class Use(StrEnum):
    """What a token made from an API key is for."""

    WORKER = "worker"
    EDGE = "edge"


def api_key(random_bytes: bytes) -> str:
    """The key made of API_KEY_BYTES random bytes."""
    return "oak_" + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def is_api_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def api_key_hash(hmac_key: bytes, key: str) -> bytes:
    """What is stored of a key, and looked up by."""
    return hmac.digest(hmac_key, f"api-key:{key}".encode(), hashlib.sha256)
