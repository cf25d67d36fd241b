"""Mail as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.backoff import Backoff

RETRY = Backoff(first_ms=2_000, max_ms=60_000)
"""How long a mail waits that the relay did not take."""


class Kind(StrEnum):
    """What a mail tells of."""

    SIGN_IN_CODE = "sign_in_code"
    INVITATION = "invitation"
    SIGN_IN_REFUSED = "sign_in_refused"
    NEW_DEVICE = "new_device"
    KEY_CREATED = "key_created"


class Outcome(StrEnum):
    """What became of a mail."""

    SENT = "sent"
    LATER = "later"
    """The relay could not take it now."""
    REFUSED = "refused"
    """The relay will never take it."""
    EXPIRED = "expired"
    """Nobody took it while it was of use."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that waits. It has no text: that is written from what it is `about` (an id) when it leaves, so that
    nothing secret waits in the database. From `expires_at` on it is of no use. `attempts` counts those that
    have begun."""

    mail_id: str
    kind: Kind
    address: str
    about: str
    expires_at: datetime
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail as it is handed over. `facts` is the same for programs that read a development mailbox."""

    mail_id: str
    address: str
    subject: str
    text: str = field(repr=False)
    facts: Mapping[str, str] = field(repr=False)


def next_try(mail: Mail, now: datetime, jitter: float) -> datetime:
    """When to try a mail again that could not leave. `jitter` is in [0, 1): half the wait is fixed."""
    ceiling_ms = RETRY.ceiling_ms(mail.attempts - 1)
    return now + timedelta(milliseconds=ceiling_ms * (1 + jitter) / 2)
