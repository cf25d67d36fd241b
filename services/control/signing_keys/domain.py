"""Which key signs, which keys verify, and how a rotation changes them.

A key is published, then signs, then only verifies, then ends. The key of the settings is in the table once a rotation
has given it an end; until then it signs, as long as no other key does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from oa_base.refusal import Refusal
from services.control.signing_keys.limits import SigningKeyLimits

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""The time from which a key of the settings may sign."""


class KeyState(StrEnum):
    """The states of a key, in this order."""

    PUBLISHED = "published"
    SIGNING = "signing"
    VERIFYING = "verifying"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as all replicas know it. `sealed` is its private half; None for a key of the settings."""

    key_id: str
    sealed: bytes | None
    made_at: datetime
    signs_from: datetime
    ends_at: datetime | None = None

    def has_ended(self, now: datetime) -> bool:
        """Whether tokens that the key signed are no longer accepted."""
        return self.ends_at is not None and self.ends_at <= now


def signing_key_id(records: Sequence[KeyRecord], able: Collection[str], own: str, now: datetime) -> str | None:
    """Return the key that signs now, of those whose private half is here (`able`); `own` is the key of the settings.

    None when there is none: the key of the settings has ended, and no newer one can be opened.
    """
    live = [record for record in records if record.key_id in able and not record.has_ended(now)]
    # A clock that is behind sees the old one ended before the new one begins. Then the new one signs.
    begun = [record for record in live if record.signs_from <= now] or live
    if begun:
        return max(begun, key=lambda record: record.signs_from).key_id
    return None if any(record.key_id == own for record in records) else own


def state_of(record: KeyRecord, signing: str | None, now: datetime) -> KeyState:
    """Return the state of the key at `now`; `signing` is the key that signs."""
    if record.key_id == signing:
        return KeyState.SIGNING
    if record.has_ended(now):
        return KeyState.ENDED
    return KeyState.PUBLISHED if record.signs_from > now else KeyState.VERIFYING


def rotated(
    records: Sequence[KeyRecord],
    given: Iterable[str],
    following: KeyRecord,
    limits: SigningKeyLimits,
    *,
    stolen: str = "",
) -> list[KeyRecord]:
    """Return all records after a rotation at `following.made_at`; `given` are the keys of the settings.

    Normally, the next key signs once everybody has it, and the others verify until their last token has expired. If a
    key was `stolen`, the next key signs now, and tokens that other keys signed are no longer accepted. Raises Refusal
    `already_exists` while the next key waits for its time, `not_found` if `stolen` is not a key, or has ended.
    """
    now = following.made_at
    known = {record.key_id for record in records}
    of_settings = [KeyRecord(each, None, now, ALWAYS) for each in given if each not in known]
    live = [record for record in (*records, *of_settings) if not record.has_ended(now)]
    if stolen and stolen not in {record.key_id for record in live}:
        message = "no key with that id is taken now; look with `oa admin keys list`"
        raise Refusal("not_found", message, field="stolen_key_id")
    if not stolen and any(record.signs_from > now for record in live):
        message = "the next key is published already, and does not sign yet; see `oa admin keys list`, and wait for it"
        raise Refusal("already_exists", message)
    signs_from = now if stolen else now + limits.published_for
    ends_at = now if stolen else signs_from + limits.kept_for
    before = [replace(each, ends_at=min(each.ends_at or ends_at, ends_at)) for each in (*records, *of_settings)]
    return [*before, replace(following, signs_from=signs_from)]
