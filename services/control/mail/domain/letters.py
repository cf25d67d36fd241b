"""Mail as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.backoff import Backoff

RETRY = Backoff(first_ms=2_000, max_ms=60_000)
"""The wait before a mail that the relay did not accept is tried again."""


class Kind(StrEnum):
    """The subject of a mail."""

    SIGN_IN_CODE = "sign_in_code"
    INVITATION = "invitation"
    SIGN_IN_REFUSED = "sign_in_refused"
    NEW_DEVICE = "new_device"
    KEY_CREATED = "key_created"
    ACCOUNT_DELETED = "account_deleted"


class Outcome(StrEnum):
    """The outcome of a delivery."""

    SENT = "sent"
    LATER = "later"
    """The relay could not accept it now."""
    REFUSED = "refused"
    """The relay will never accept it."""
    EXPIRED = "expired"
    """It was not accepted while it was of use."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that waits. It has no text: the text is written when the mail is sent, from what it is `about` (an id), so
    that no secret waits in the database. From `expires_at` on it is of no use. `attempts` counts the attempts that have
    begun."""

    mail_id: str
    kind: Kind
    address: str
    about: str
    expires_at: datetime
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail in the form that is handed over. `facts` says the same to programs that read a development mailbox."""

    mail_id: str
    address: str
    subject: str
    text: str = field(repr=False)
    facts: Mapping[str, str] = field(repr=False)


def next_try(mail: Mail, now: datetime, jitter: float) -> datetime:
    """When to retry a mail that could not be sent. `jitter` is in [0, 1): half the wait is fixed."""
    ceiling_ms = RETRY.ceiling_ms(mail.attempts - 1)
    return now + timedelta(milliseconds=ceiling_ms * (1 + jitter) / 2)
