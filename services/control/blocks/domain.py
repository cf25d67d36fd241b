"""The people and service accounts that operators can block."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_ID = re.compile(r"(usr|sva)_[0-9A-HJKMNP-TV-Z]{26}")
_PERSON_PREFIX = "usr_"


@dataclass(frozen=True, slots=True)
class Subject:
    """A person or service account, as an operator sees it. `name` is the address of a person, empty once the account is
    deleted."""

    subject: str
    name: str
    org_id: str
    blocked_at: datetime | None
    live_sessions: int
    live_keys: int
    deleted_at: datetime | None = None

    @property
    def is_person(self) -> bool:
        """Whether it is a person."""
        return self.subject.startswith(_PERSON_PREFIX)


def is_subject_id(text: str) -> bool:
    """Whether `text` is the id of a person or service account, rather than an address."""
    return _ID.fullmatch(text) is not None
