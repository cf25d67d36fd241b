"""Service accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An account with which workers or scripts of an org sign in. Its keys are in `api_keys`."""

    service_account_id: str
    org_id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None = None
    blocked_at: datetime | None = None
