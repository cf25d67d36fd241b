"""The keys that sign tokens, as this replica knows them, and what an operator can do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.auth.keys import SigningKey, thumbprint, to_jwks
from oa_platform.health.failures import surviving
from services.control.audit.app import Audited
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.signing_keys import metrics
from services.control.signing_keys.domain import KeyRecord, KeyState, rotated, signing_key_id, state_of
from services.control.signing_keys.limits import SigningKeyLimits
from services.control.transactions.app import Transactions

_log = structlog.get_logger(__name__)


class KeyBox(Protocol):
    """Seals private keys, so that the database alone does not reveal them."""

    def seal(self, key: SigningKey) -> bytes:
        """Return the key in its stored form."""
        ...

    def open(self, key_id: str, sealed: bytes) -> SigningKey | None:
        """Return the sealed key; None if it was sealed with another HMAC key, or is a different key."""
        ...


class SigningKeyStore(Protocol):
    """The keys of all replicas."""

    async def lock(self) -> None:
        """Wait for another rotation to end; later rotations wait for this one."""
        ...

    async def all(self) -> Sequence[KeyRecord]:
        """Every key, the oldest first."""
        ...

    async def put(self, records: Sequence[KeyRecord]) -> None:
        """Add new records, and give existing ones their new end."""
        ...


class Transaction(Audited, Protocol):
    """A transaction with the keys."""

    @property
    def signing_keys(self) -> SigningKeyStore: ...


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key and its current state."""

    record: KeyRecord
    state: KeyState


class SigningKeys:
    """Follows the database: `start` first, then `run` until canceled. While it is away, the last known keys hold.

    `own` is the key of the settings, `given` are all public keys of the settings, that of `own` first. This is the
    `KeySource` of control's own verifier.
    """

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        box: KeyBox,
        own: SigningKey,
        given: Sequence[Ed25519PublicKey],
        make: Callable[[], SigningKey],
        limits: SigningKeyLimits,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._box = box
        self._own = own
        self._make = make
        self._limits = limits
        self._given = {thumbprint(key): key for key in given}
        self._private = {own.kid: own}
        self._public = dict(self._given)
        self._records: Sequence[KeyRecord] = ()
        self._unreadable: set[str] = set()
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")

    async def start(self) -> None:
        """Read the keys. Raises Refusal: `unavailable`; `invalid_setting` when no key is left to sign with."""
        await self._read()
        _ = self.signing

    async def run(self) -> None:
        """Read the keys again and again, until canceled."""
        while True:
            await asyncio.sleep(self._limits.look_interval_s)
            with surviving(_log, "signing_keys_not_read"):  # the keys that are known go on signing
                await self._read()

    @property
    def signing(self) -> SigningKey:
        """The key that signs now. Raises Refusal `invalid_setting` when there is none."""
        key_id = signing_key_id(self._records, self._private, self._own.kid, self._clock.now())
        if key_id is None:
            message = (
                "the key in OA_SIGNING_KEY was replaced, and what replaced it was sealed by another OA_HMAC_KEY; "
                "give OA_SIGNING_KEY a new key"
            )
            raise Refusal("invalid_setting", message, field="OA_SIGNING_KEY")
        return self._private[key_id]

    def jwks(self) -> dict[str, object]:
        """The JWK set for /.well-known/jwks.json: every key that has not ended, the signing one first."""
        signing = self.signing.kid
        live = [key_id for key_id in self._public if key_id != signing and not self._has_ended(key_id)]
        return to_jwks(self._public[key_id] for key_id in (signing, *live))

    async def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key with this id. Reads the database for an unknown one: another replica may have made it.

        Raises Refusal `token_expired` for a key that has ended, so that the bearer of the token gets a new one.
        """
        if kid not in self._public:
            await self._look_again()
        if self._has_ended(kid):
            raise Refusal("token_expired", "the key that signed the token has ended; get a new token")
        return self._public.get(kid)

    async def list(self) -> Sequence[ShownKey]:
        """All keys, the oldest first, and those of the settings before them."""
        await self._read()
        now, signing = self._clock.now(), self.signing.kid
        known = {record.key_id for record in self._records}
        given = [_of_settings(key_id, now) for key_id in self._given if key_id not in known]
        return [ShownKey(each, state_of(each, signing, now)) for each in (*given, *self._records)]

    async def rotate(self, origin: Origin, stolen: str = "") -> Sequence[ShownKey]:
        """Make the next key, or the replacement of a stolen one. Returns all keys after that.

        Raises Refusal `already_exists` while a key waits for its time, `not_found` if `stolen` is not a key.
        """
        made, now = self._make(), self._clock.now()
        following = KeyRecord(made.kid, self._box.seal(made), now, now)
        async with self._transactions.begin() as tx:
            await tx.signing_keys.lock()
            records = await tx.signing_keys.all()
            after = rotated(records, self._given, following, self._limits, stolen=stolen)
            await tx.signing_keys.put(after)
            reason = "stolen" if stolen else ""
            await tx.audit.add(AuditEntry(Action.SIGNING_KEY_ROTATED, origin, "operator", "", made.kid, reason), now)
        _log.info("signing_key_rotated", key_id=made.kid, stolen=stolen)
        return await self.list()

    def _has_ended(self, key_id: str) -> bool:
        now = self._clock.now()
        return any(record.key_id == key_id and record.has_ended(now) for record in self._records)

    async def _look_again(self) -> None:
        async with self._looking:
            if self._clock.monotonic() - self._looked_at >= self._limits.min_look_interval_s:
                await self._read()

    async def _read(self) -> None:
        began = self._clock.monotonic()
        async with self._transactions.autocommit() as tx:
            records = await tx.signing_keys.all()
        for record in records:
            self._open(record)
        self._records = records
        self._looked_at = began
        metrics.LOOKED.set(self._clock.time())
        metrics.PUBLISHED.set(sum(not self._has_ended(key_id) for key_id in self._public))

    def _open(self, record: KeyRecord) -> None:
        # A key stays the same object, because verified signatures are remembered by it.
        if record.sealed is None or record.key_id in self._private or record.key_id in self._unreadable:
            return
        key = self._box.open(record.key_id, record.sealed)
        if key is None:
            self._unreadable.add(record.key_id)
            _log.error("signing_key_unreadable", key_id=record.key_id)
            return
        self._private[key.kid] = key
        self._public[key.kid] = key.public_key


def _of_settings(key_id: str, now: datetime) -> KeyRecord:
    return KeyRecord(key_id, None, now, now)
