"""API keys: `oak_` and 32 random bytes in base64url. A key signs in its owner, a service account or a person."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.identity import API_KEY_PREFIX, PrincipalKind
from oa_base.refusal import Refusal
from services.control.api_keys.limits import MAX_OVERLAP_S, MIN_TTL_S
from services.control.policy.domain import (
    SERVICE_ACCOUNT_SCOPES,
    WORKER_SCOPES,
    Role,
    Scope,
    Scopes,
    StandingPrincipal,
    role_scopes,
)

API_KEY_BYTES = 32
_KEY = re.compile(r"oak_[A-Za-z0-9_-]{43}")
_VISIBLE_CHARS = 12
_PERSON_PREFIX = "usr_"

SERVICE_ACCOUNT_KEY_SCOPES: Scopes = SERVICE_ACCOUNT_SCOPES | WORKER_SCOPES
"""The scopes that a service account's key can have: they let it call the edge, and let workers attach."""
PERSON_KEY_SCOPES: Scopes = frozenset(
    {Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.WORKERS_READ, Scope.NOTIFICATIONS_READ, Scope.SERVICE_ACCOUNTS_READ}
)
"""The scopes that a person's key can have. Everything else needs a session, above all changing who gets in."""


class Use(StrEnum):
    """What a token made from an API key is for."""

    WORKER = "worker"
    EDGE = "edge"


class EndReason(StrEnum):
    """Why a key has ended. A stored key may have a reason of a later release."""

    USER_REQUESTED = "user_requested"
    ROTATED = "rotated"
    EXPIRED = "expired"
    OWNER_BLOCKED = "owner_blocked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its text. `expires_at` is None for a key without an end of its own."""

    api_key_id: str
    owner: str
    org_id: str
    name: str
    prefix: str
    scopes: Scopes
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoke_reason: str | None = None
    replaced_by: str = ""

    @property
    def of_person(self) -> bool:
        """Whether it is a personal access token."""
        return self.owner.startswith(_PERSON_PREFIX)

    def works(self, now: datetime) -> bool:
        """Whether it has not ended."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def full(self) -> bool:
        """Whether it has all that a service account's key can have: the only kind that the previous release knows."""
        return not self.of_person and self.expires_at is None and self.scopes == SERVICE_ACCOUNT_KEY_SCOPES


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """A key, and what its owner may do now in the key's org; None for an owner who has no access at all."""

    key: ApiKey
    standing: Scopes | None

    def works(self, now: datetime) -> bool:
        """Whether it gives access."""
        return self.standing is not None and self.key.works(now)

    @property
    def principal(self) -> StandingPrincipal:
        """The owner as a caller of the edge. The key takes the place of a session: what it has opened ends with it."""
        kind = PrincipalKind.USER if self.key.of_person else PrincipalKind.SERVICE_ACCOUNT
        return StandingPrincipal(
            kind,
            self.key.owner,
            self.key.org_id,
            scopes=self.key.scopes - WORKER_SCOPES,
            session_id=self.key.api_key_id,
            standing=self.standing or frozenset(),
        )


def is_api_key_id(session_id: str) -> bool:
    """Whether the session id of a token is that of an API key."""
    return session_id.startswith(API_KEY_PREFIX)


def owner_scopes(owner: str, *, may_come_in: bool, role: Role | None) -> Scopes | None:
    """What the owner of a key may do now. A person who has left the org may do no more there than a stranger."""
    if not may_come_in:
        return None
    if not owner.startswith(_PERSON_PREFIX):
        return SERVICE_ACCOUNT_SCOPES
    return role_scopes(role) if role else None


def api_key(random_bytes: bytes) -> str:
    """The key made from API_KEY_BYTES random bytes."""
    return "oak_" + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def rotated_api_key(hmac_key: bytes, api_key_id: str, caller: str, idempotency_key: str) -> str:
    """The key with this id that a rotation makes. The same request of the same caller always makes the same text, so
    that the answer can be repeated although only the hash is stored."""
    request = f"rotated-api-key:{api_key_id}:{caller}:{idempotency_key}"
    return api_key(hmac.digest(hmac_key, request.encode(), hashlib.sha256))


def is_api_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def visible_prefix(key: str) -> str:
    """The part of a key that may be shown: 48 of its 256 bits, enough to identify a key that was found."""
    return key[:_VISIBLE_CHARS]


def api_key_hash(hmac_key: bytes, key: str) -> bytes:
    """The hash under which a key is stored and looked up."""
    return hmac.digest(hmac_key, f"api-key:{key}".encode(), hashlib.sha256)


def scopes_of_key(asked: Sequence[str], possible: Scopes, creator: Scopes) -> Scopes:
    """The scopes of a new key: those asked for, or if none are, all that the creator can give.

    A key can have the scopes in `possible`. Of these, the creator can give those that it has itself, and
    `workers.attach`, which no person has. Raises Refusal `invalid_value`, `missing_scope`.
    """
    given = possible & (creator | WORKER_SCOPES)
    if not asked:
        return given
    wanted = frozenset(scope for scope in Scope if scope.value in asked)
    if len(wanted) < len(set(asked)) or not wanted <= possible:
        known = ", ".join(sorted(possible))
        raise Refusal("invalid_value", f"such a key has some of {known}; ask for these", field="scopes")
    if missing := sorted(wanted - given):
        message = f"you may not do {missing[0]} yourself; leave it out, or ask an admin of the org for the key"
        raise Refusal("missing_scope", message, field="scopes", metadata={"scope": missing[0]})
    return wanted


def end_of_key(ttl_s: int, now: datetime, max_ttl: timedelta | None) -> datetime | None:
    """When a new key ends. `max_ttl` is for keys that need an end. Raises Refusal `missing_field`, `invalid_value`."""
    if not ttl_s:
        if max_ttl is None:
            return None
        raise Refusal(
            "missing_field", "a personal access token needs an end; say how long it lives", field="ttl_seconds"
        )
    if ttl_s < MIN_TTL_S:
        raise Refusal("invalid_value", f"a key lives at least {MIN_TTL_S} s; give more", field="ttl_seconds")
    ttl = timedelta(seconds=ttl_s)
    if max_ttl is not None and ttl > max_ttl:
        seconds = int(max_ttl.total_seconds())
        message = f"a personal access token lives at most {seconds} s ({max_ttl.days} days) here; give less"
        raise Refusal("invalid_value", message, field="ttl_seconds")
    return now + ttl


def end_of_successor(old: ApiKey, now: datetime, max_ttl_of_person: timedelta) -> datetime | None:
    """When the key that replaces `old` now ends: it lives as long as `old` was to live.

    Raises Refusal `invalid_value` for a personal access token that would live longer than they may by now.
    """
    if old.expires_at is None:
        return None
    ttl = old.expires_at - old.created_at
    if old.of_person and ttl > max_ttl_of_person:
        message = f"a personal access token lives at most {max_ttl_of_person.days} days here by now; make a new one"
        raise Refusal("invalid_value", message, field="api_key_id")
    return now + ttl


def end_of_rotated(old: ApiKey, overlap_s: int, now: datetime) -> datetime:
    """When a key that is rotated now ends. Raises Refusal `invalid_value`, `already_exists`, `not_found`."""
    if overlap_s > MAX_OVERLAP_S:
        message = f"a rotated key works for at most {MAX_OVERLAP_S} s; give less"
        raise Refusal("invalid_value", message, field="overlap_seconds")
    if old.replaced_by:
        raise _rotated_before("the key was rotated before; rotate the one that took its place", old)
    if not old.works(now):
        raise Refusal("not_found", "the key has ended; make a new one", field="api_key_id")
    return _end_after(overlap_s, now, old.expires_at)


def check_answered_again(old: ApiKey, new: ApiKey, overlap_s: int, now: datetime) -> None:
    """Check that a rotation that made `new` may be answered once more. Raises Refusal `idempotency_conflict` if it
    asked for another overlap; `already_exists` if the new key was used, which shows that the first answer has arrived;
    `not_found` if the new key has ended."""
    end_before = old.created_at + (new.expires_at - new.created_at) if new.expires_at else None
    if new.replaced_by or new.last_used_at:
        message = "the key was rotated before, and the new one was used, so it isn't shown again; rotate the new one"
        raise _rotated_before(message, old)
    if not new.works(now):
        message = "the key was rotated before, and the new one has ended; make another key"
        raise Refusal("not_found", message, field="api_key_id")
    if _end_after(overlap_s, new.created_at, end_before) != old.expires_at:
        message = "the idempotency key was used before with another overlap; give that one"
        raise Refusal("idempotency_conflict", message, field="idempotency_key")


def _rotated_before(message: str, old: ApiKey) -> Refusal:
    return Refusal("already_exists", message, field="api_key_id", metadata={"replaced_by": old.replaced_by})


def _end_after(overlap_s: int, now: datetime, own_end: datetime | None) -> datetime:
    end = now + timedelta(seconds=overlap_s)
    return min(end, own_end) if own_end else end
