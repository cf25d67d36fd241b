"""Blocking people and service accounts, and removing blocks."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from services.control.api_keys.app import keys as keys_app
from services.control.api_keys.app.keys import ApiKeys
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin
from services.control.blocks.domain import Subject, is_subject_id
from services.control.mail.domain.address import canonical_email
from services.control.revocations.domain import Revocation
from services.control.sessions import app as sessions_app
from services.control.sessions.app import Sessions
from services.control.transactions.app import Transactions


class BlockStore(Protocol):
    """People and service accounts, and their blocks."""

    async def by_email(self, email: str) -> Subject | None:
        """The person with the address."""
        ...

    async def get(self, subject: str) -> Subject | None:
        """The person or service account."""
        ...

    async def locked(self, subject: str) -> Subject | None:
        """The same, locked until the transaction ends, so that the subject can't sign in in the meantime."""
        ...

    async def set_block(self, subject: Subject, blocked_at: datetime | None) -> None:
        """Block the subject, or with None remove its block."""
        ...


class Transaction(keys_app.Transaction, sessions_app.Transaction, Protocol):
    """A transaction with everything that a block ends."""

    @property
    def blocks(self) -> BlockStore: ...


class Blocks:
    """Blocks by operators. Locks are taken in one order: subject, sessions, keys, and last revocations."""

    def __init__(
        self, transactions: Transactions[Transaction], clock: Clock, sessions: Sessions, api_keys: ApiKeys
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._sessions = sessions
        self._api_keys = api_keys

    async def get(self, who: str) -> Subject:
        """The person or service account with this id, or the person with this address. Raises Refusal `not_found`."""
        async with self._transactions.autocommit() as tx:
            return await _found(tx, who)

    async def block(self, who: str, origin: Origin) -> Subject:
        """Keep the subject out, and end everything that it has open, in one transaction. Raises Refusal `not_found`.

        A person's sessions and keys end for good, and the audit log of the org in which each acts has its end.
        A service account's keys stay, and work again after the block is removed. A deleted account stays as it is.
        """
        async with self._transactions.begin() as tx:
            subject = await _locked(tx, who)
            if subject.blocked_at or subject.deleted_at:
                return subject
            now = self._clock.now()
            await tx.blocks.set_block(subject, now)
            await tx.audit.add(_entry(Action.BLOCKED, subject, origin), now)
            await self._end(tx, subject, origin, now)
            return await _found(tx, subject.subject)

    async def _end(self, tx: Transaction, subject: Subject, origin: Origin, now: datetime) -> None:
        if subject.is_person:
            await self._sessions.end_for_operator(tx, subject.subject, "", origin)
            await self._api_keys.end_of_blocked(tx, subject.subject, origin, now)
        await tx.revocations.add(Revocation.of_blocked(subject.subject, now), now)

    async def unblock(self, who: str, origin: Origin) -> Subject:
        """Remove the block. Sessions and keys that it ended stay ended. Raises Refusal `not_found`."""
        async with self._transactions.begin() as tx:
            subject = await _locked(tx, who)
            if subject.blocked_at:
                now = self._clock.now()
                await tx.blocks.set_block(subject, None)
                await tx.audit.add(_entry(Action.UNBLOCKED, subject, origin), now)
                await tx.revocations.add(Revocation.of_unblocked(subject.subject), now)
            return await _found(tx, subject.subject)


async def named(subjects: BlockStore, who: str) -> Subject | None:
    """The subject with this id, or the person with this address. Raises Refusal if `who` is neither."""
    return await (subjects.get(who) if is_subject_id(who) else subjects.by_email(canonical_email(who)))


async def _found(tx: Transaction, who: str) -> Subject:
    found = await named(tx.blocks, who)
    if found is None:
        message = "there is no such person or service account; give the id, or the address of a person"
        raise Refusal("not_found", message, field="subject")
    return found


async def _locked(tx: Transaction, who: str) -> Subject:
    seen = await _found(tx, who)
    return await tx.blocks.locked(seen.subject) or seen


def _entry(action: Action, subject: Subject, origin: Origin) -> AuditEntry:
    return AuditEntry(action, origin, OPERATOR, subject.org_id, subject.subject)
