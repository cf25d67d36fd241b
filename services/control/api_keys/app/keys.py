"""API keys: creating, listing, rotating, ending and exchanging them.

Locks are taken in one order: org, owner, key, and last the order of revocations. The caller's role in the org of a
service account is read under the org's lock: a key outlives the role of whoever made it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_platform.tasks.together import Together
from services.control.api_keys.app.uses import KeyUses, UseStore
from services.control.api_keys.domain import (
    API_KEY_BYTES,
    PERSON_KEY_SCOPES,
    SERVICE_ACCOUNT_KEY_SCOPES,
    ApiKey,
    EndReason,
    OwnedKey,
    Use,
    api_key,
    api_key_hash,
    check_answered_again,
    end_of_key,
    end_of_rotated,
    end_of_successor,
    is_api_key,
    rotated_api_key,
    scopes_of_key,
    visible_prefix,
)
from services.control.api_keys.limits import REFUSED_ON_RECORD_EVERY, KeyLimits
from services.control.audit.app import Audited
from services.control.audit.domain import OPERATOR, Action, AuditEntry, Origin
from services.control.housekeeping.limits import Retention
from services.control.mail import app as mail_app
from services.control.notices.app import tell_of_key
from services.control.orgs.app import MembershipTransaction, PeopleTransaction, acting, done
from services.control.orgs.domain import org_deleted, require_name
from services.control.policy.domain import (
    WORKER_SCOPES,
    OrgOwned,
    Scope,
    Scoped,
    Scopes,
    SessionOnly,
    Standing,
    StandingPrincipal,
    require,
)
from services.control.revocations.app import Revoking
from services.control.revocations.domain import Revocation
from services.control.tokens.app import IssuedToken, TokenIssuer
from services.control.transactions.app import Transactions, settled


class ApiKeyStore(UseStore, Protocol):
    """Keys, and the current state of their owners."""

    async def add(self, key: ApiKey, key_hash: bytes, created_by: str) -> None:
        """Store a new key."""
        ...

    async def by_hash(self, key_hash: bytes) -> ApiKey | None:
        """The key with this hash, ended or not."""
        ...

    async def get(self, api_key_id: str) -> ApiKey | None:
        """The key."""
        ...

    async def locked(self, api_key_id: str) -> ApiKey | None:
        """The key, locked until the transaction ends."""
        ...

    async def standing(self, api_key_id: str) -> OwnedKey | None:
        """The key, and what its owner may do now."""
        ...

    async def standings(self, api_key_ids: Sequence[str]) -> Mapping[str, OwnedKey]:
        """The same of several keys, by id, without those that don't exist."""
        ...

    async def hold_owner(self, owner: str) -> None:
        """Keep the owner unchanged until the transaction ends."""
        ...

    async def hold_session(self, session_id: str) -> bool:
        """Whether a session was not ended. Nobody ends it until the transaction ends."""
        ...

    async def org_of_account(self, service_account_id: str, *, ended_too: bool) -> str | None:
        """The org of a service account; None for one that doesn't exist or, unless `ended_too`, has ended."""
        ...

    async def count_live(self, owner: str, now: datetime) -> int:
        """The number of the owner's keys that work. Locks the owner, so that the number stays correct."""
        ...

    async def live(self, owner: str) -> Sequence[ApiKey]:
        """The owner's keys that have not been ended, locked."""
        ...

    async def listed(self, owner: str) -> Sequence[ApiKey]:
        """The owner's keys, newest first."""
        ...

    async def expired(self, now: datetime) -> Sequence[ApiKey]:
        """Some of the keys that have expired and have not been ended, locked."""
        ...

    async def end(self, api_key_id: str, reason: EndReason, now: datetime) -> None:
        """End the key, unless it has ended already."""
        ...

    async def replace(self, api_key_id: str, replaced_by: str, expires_at: datetime) -> None:
        """Store the key's successor, and when the key ends."""
        ...

    async def sweep(self, after: str, ended_before: datetime, by_operators_before: datetime) -> str:
        """Remove keys that ended earlier, and those of orgs that are gone since, among a limited number of keys after
        an id. Return the id after which to go on; empty at the end."""
        ...

    async def refused(self, api_key_id: str, now: datetime, not_since: datetime) -> bool:
        """Whether to record a use of the key after its end: none has been recorded since `not_since`."""
        ...


class Transaction(Audited, Revoking, PeopleTransaction, MembershipTransaction, mail_app.Transaction, Protocol):
    """A transaction with keys."""

    @property
    def api_keys(self) -> ApiKeyStore: ...


@dataclass(frozen=True)
class NewKey:
    """A key and its text, which is stored nowhere else."""

    key: ApiKey
    text: str


@dataclass(frozen=True)
class Wanted:
    """The requested properties of a new key. Empty `scopes`: all that it can have. `ttl_s` 0: no end."""

    name: str
    scopes: Sequence[str] = ()
    ttl_s: int = 0


class ApiKeys:
    """The API keys of people and service accounts. `hmac_key` hashes them."""

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        issuer: TokenIssuer,
        hmac_key: bytes,
        limits: KeyLimits,
        retention: Retention,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._issuer = issuer
        self._hmac_key = hmac_key
        self._limits = limits
        self._retention = retention
        self._swept_to = ""
        self.uses = KeyUses(transactions)
        self._standings = Together(self._read_standings)

    async def create(
        self, principal: StandingPrincipal, service_account_id: str, wanted: Wanted, origin: Origin
    ) -> NewKey:
        """Create a key of a service account of the caller's org or, with an empty id, of the caller.

        Raises Refusal `not_found`, `limit_reached`, `missing_scope`, `invalid_value`, `missing_field`.
        """
        require(principal, SessionOnly())
        owner = service_account_id or _own(principal)
        async with self._transactions.begin() as tx:
            if service_account_id:
                await acting(tx, principal, principal.org_id, Scope.SERVICE_ACCOUNTS_WRITE)
                await _check_account(tx, principal, service_account_id)
            return await self.issue(tx, principal, owner, wanted, origin)

    async def issue(
        self, tx: Transaction, principal: StandingPrincipal, owner: str, wanted: Wanted, origin: Origin
    ) -> NewKey:
        """Create a key for an owner to whom the caller may give one. People are notified by mail of their own keys."""
        require_name(wanted.name)
        of_person = owner == principal.subject
        now = self._clock.now()
        possible = PERSON_KEY_SCOPES if of_person else SERVICE_ACCOUNT_KEY_SCOPES
        scopes = scopes_of_key(wanted.scopes, possible, principal.effective_scopes)
        ends = end_of_key(wanted.ttl_s, now, self._limits.max_ttl_of_person if of_person else None)
        key = ApiKey(new_id("apk"), owner, principal.org_id, wanted.name, "", scopes, now, ends)
        text = api_key(secrets.token_bytes(API_KEY_BYTES))
        return await self._add(tx, principal, key, text, origin, "service_account_id")

    async def _add(
        self, tx: Transaction, principal: StandingPrincipal, key: ApiKey, text: str, origin: Origin, field: str
    ) -> NewKey:
        """Store a key. `field` of the request names whose key it is."""
        if await tx.api_keys.count_live(key.owner, key.created_at) >= self._limits.max_live:
            message = f"there are {self._limits.max_live} keys already; revoke those that nobody uses"
            raise Refusal("limit_reached", message)
        # A key outlives the session that made it: who ends a session must not miss a key that it is making.
        if not await tx.api_keys.hold_session(principal.session_id):
            raise _access_ended()
        key = replace(key, prefix=visible_prefix(text))
        await tx.api_keys.add(key, api_key_hash(self._hmac_key, text), principal.subject)
        owned = await tx.api_keys.standing(key.api_key_id)
        if owned is None or owned.standing is None:
            raise _owner_kept_out(key, field)
        await tx.audit.add(done(principal, Action.KEY_CREATED, origin, key.org_id, key.api_key_id), key.created_at)
        if key.of_person:
            await tell_of_key(tx, await tx.people.email(key.owner), key.api_key_id, key.created_at)
        return NewKey(key, text)

    def hash_of(self, new: NewKey) -> bytes:
        """The hash that is stored for a new key."""
        return api_key_hash(self._hmac_key, new.text)

    async def list(self, principal: StandingPrincipal, service_account_id: str) -> Sequence[ApiKey]:
        """The keys of a service account of the caller's org or, with an empty id, of the caller. Raises Refusal
        `not_found`."""
        if not service_account_id and principal.kind is not PrincipalKind.USER:
            return ()
        async with self._transactions.autocommit() as tx:
            if not service_account_id:
                return await tx.api_keys.listed(principal.subject)
            require(principal, Scoped(Scope.SERVICE_ACCOUNTS_READ), OrgOwned(principal.org_id))
            await _check_account(tx, principal, service_account_id, ended_too=True)
            return await tx.api_keys.listed(service_account_id)

    async def rotate(
        self,
        principal: StandingPrincipal,
        api_key_id: str,
        overlap_s: int,
        origin: Origin,
        idempotency_key: str = "",
    ) -> tuple[NewKey, datetime]:
        """Replace a key with a new one. Return the new key, and when the old one ends: it still works for `overlap_s`.
        The same request with the same `idempotency_key` gets the same answer until the new key has been used.

        Raises Refusal `already_exists` for a key that was rotated before; `not_found`, `invalid_value`,
        `limit_reached`, `idempotency_conflict`.
        """
        require(principal, SessionOnly())
        async with self._transactions.begin() as tx:
            old = await self._changing(tx, principal, api_key_id)
            now = self._clock.now()
            before = await self._rotated(tx, principal, old, idempotency_key)
            if before and old.expires_at:
                check_answered_again(old, before.key, overlap_s, now)
                entry = done(principal, Action.KEY_ROTATED, origin, old.org_id, api_key_id, "answered_again")
                await tx.audit.add(entry, now)
                return before, old.expires_at
            old_ends = end_of_rotated(old, overlap_s, now)
            scopes = scopes_of_key(sorted(old.scopes), old.scopes, await _may_give(tx, principal, old))
            ends = end_of_successor(old, now, self._limits.max_ttl_of_person)
            key = ApiKey(new_id("apk"), old.owner, old.org_id, old.name, "", scopes, now, ends)
            text = self._text_of_rotated(principal, key.api_key_id, idempotency_key)
            new = await self._add(tx, principal, key, text, origin, "api_key_id")
            await tx.api_keys.replace(api_key_id, key.api_key_id, old_ends)
            await tx.audit.add(done(principal, Action.KEY_ROTATED, origin, old.org_id, api_key_id), now)
            if not overlap_s:
                await _end(tx, api_key_id, EndReason.ROTATED, now)
        return new, old_ends

    async def _rotated(
        self, tx: Transaction, principal: StandingPrincipal, old: ApiKey, idempotency_key: str
    ) -> NewKey | None:
        """The key that an earlier call of this request made, if any: its text has the hash that was stored then."""
        if not old.replaced_by or not idempotency_key:
            return None
        text = self._text_of_rotated(principal, old.replaced_by, idempotency_key)
        found = await tx.api_keys.by_hash(api_key_hash(self._hmac_key, text))
        return NewKey(found, text) if found else None

    def _text_of_rotated(self, principal: StandingPrincipal, api_key_id: str, idempotency_key: str) -> str:
        if not idempotency_key:
            return api_key(secrets.token_bytes(API_KEY_BYTES))
        return rotated_api_key(self._hmac_key, api_key_id, principal.subject, idempotency_key)

    async def revoke(self, principal: StandingPrincipal, api_key_id: str, origin: Origin) -> None:
        """End a key, and the tokens that were made from it. Raises Refusal `not_found` for another's key."""
        require(principal, SessionOnly())
        async with self._transactions.begin() as tx:
            key = await self._changing(tx, principal, api_key_id)
            if key.revoked_at:
                return
            now = self._clock.now()
            await tx.audit.add(done(principal, Action.KEY_REVOKED, origin, key.org_id, api_key_id), now)
            await _end(tx, api_key_id, EndReason.USER_REQUESTED, now)

    async def _changing(self, tx: Transaction, principal: StandingPrincipal, api_key_id: str) -> ApiKey:
        """A key that the caller may change, locked. Raises Refusal `not_found` for another's key."""
        seen = _mine(principal, await tx.api_keys.get(api_key_id))
        if not seen.of_person:
            await acting(tx, principal, seen.org_id, Scope.SERVICE_ACCOUNTS_WRITE)
        await tx.api_keys.count_live(seen.owner, self._clock.now())
        return _mine(principal, await tx.api_keys.locked(api_key_id))

    async def end_of_blocked(self, tx: Transaction, owner: str, origin: Origin, now: datetime) -> None:
        """End all keys of an owner whom an operator blocks; the caller has locked the owner. Each is recorded in the
        org that it acts in."""
        reason, keys = EndReason.OWNER_BLOCKED, await tx.api_keys.live(owner)
        for key in keys:
            entry = AuditEntry(Action.KEY_REVOKED, origin, OPERATOR, key.org_id, key.api_key_id, reason.value)
            await tx.audit.add(entry, now)
        for key in keys:
            await _end(tx, key.api_key_id, reason, now)

    async def sweep(self) -> None:
        """End keys that have expired, because a key that was rotated may have tokens that live longer."""
        async with self._transactions.begin() as tx:
            now = self._clock.now()
            ended = [
                (key, EndReason.ROTATED if key.replaced_by else EndReason.EXPIRED)
                for key in await tx.api_keys.expired(now)
            ]
            for key, reason in ended:
                entry = AuditEntry(Action.KEY_REVOKED, Origin(), key.owner, key.org_id, key.api_key_id, reason.value)
                await tx.audit.add(entry, now)
            for key, reason in ended:
                await _end(tx, key.api_key_id, reason, now)

    async def sweep_ended(self) -> None:
        """Remove keys that ended long ago. Looks at a page of all keys, and the next time at the next one. A removed
        key is refused as one that was never made."""
        now, retention = self._clock.now(), self._retention
        async with self._transactions.autocommit() as tx:
            self._swept_to = await tx.api_keys.sweep(
                self._swept_to, now - retention.ended, now - retention.ended_by_operators
            )

    async def exchange(self, text: str, use: Use, origin: Origin) -> IssuedToken:
        """Exchange a key for a token, which does not outlive the key. Raises Refusal `invalid_api_key`, which is the
        same for unknown and ended keys; `org_deleted` for a key that will work when its org is restored;
        `missing_scope` for a worker's token from a key without `workers.attach`."""
        if not is_api_key(text):
            raise _unknown_key()
        async with self._transactions.begin() as tx:
            outcome = await self._exchange(tx, api_key_hash(self._hmac_key, text), use, origin)
        owned, now = settled(outcome)
        self.uses.note(owned.key.api_key_id, now, visible_prefix(text))
        if use is Use.WORKER:
            return self._issuer.for_worker(owned.principal, now, owned.key.expires_at)
        return self._issuer.for_api_key(owned.principal, now, owned.key.expires_at)

    async def _exchange(
        self, tx: Transaction, key_hash: bytes, use: Use, origin: Origin
    ) -> tuple[OwnedKey, datetime] | Refusal:
        found = await tx.api_keys.by_hash(key_hash)
        if found is None:
            return _unknown_key()
        if not await tx.orgs.held_open(found.org_id):
            now = self._clock.now()
            waits = found.works(now) and await tx.orgs.restorable(found.org_id, now)
            return org_deleted() if waits else _unknown_key()
        await tx.api_keys.hold_owner(found.owner)
        owned = await tx.api_keys.standing(found.api_key_id)
        now = self._clock.now()
        refusal = _why_not(owned, use, now)
        entry = AuditEntry(Action.KEY_EXCHANGED, origin, found.owner, found.org_id, f"{found.api_key_id} {use.value}")
        if owned is None or refusal:
            if await tx.api_keys.refused(found.api_key_id, now, now - REFUSED_ON_RECORD_EVERY):
                await tx.audit.add(replace(entry, reason=(refusal or _unknown_key()).reason), now)
            return refusal or _unknown_key()
        await tx.audit.add(entry, now)
        return owned, now

    async def standing(self, principal: StandingPrincipal, jti: str) -> Standing | None:
        """What the owner of the token's key may do now; None if one of them has ended. See `policy.app.AskStanding`."""
        now = self._clock.now()
        owned = _behind(principal, await self._standings.ask(principal.session_id), now)
        if owned is None or owned.standing is None:
            return None
        if jti:  # a question about a key is not a use of it
            self.uses.note(owned.key.api_key_id, now)
        return Standing(owned.standing)

    async def _read_standings(self, api_key_ids: Sequence[str]) -> Sequence[OwnedKey | None]:
        async with self._transactions.autocommit() as tx:
            found = await tx.api_keys.standings(api_key_ids)
        return [found.get(api_key_id) for api_key_id in api_key_ids]

    async def still(self, tx: Transaction, principal: StandingPrincipal) -> tuple[Scopes, datetime | None]:
        """What the owner of the key behind the caller's token may do now, and when the key ends (None for a key without
        an end). Nobody blocks the owner until the transaction ends. Raises Refusal `token_revoked`."""
        await tx.api_keys.hold_owner(principal.subject)
        owned = _behind(principal, await tx.api_keys.standing(principal.session_id), self._clock.now())
        if owned is None or owned.standing is None:
            raise Refusal("token_revoked", "the key behind the token has ended; make a new one")
        return owned.standing, owned.key.expires_at


def _behind(principal: StandingPrincipal, owned: OwnedKey | None, now: datetime) -> OwnedKey | None:
    """The key behind a token, if it works and belongs to the caller."""
    if owned is None or not owned.works(now):
        return None
    same = owned.principal
    is_callers = (same.kind, same.subject, same.org_id) == (principal.kind, principal.subject, principal.org_id)
    return owned if is_callers else None


async def _check_account(
    tx: Transaction, principal: StandingPrincipal, service_account_id: str, *, ended_too: bool = False
) -> None:
    if await tx.api_keys.org_of_account(service_account_id, ended_too=ended_too) != principal.org_id:
        message = "there is no such service account, or it has ended; list those of your org"
        raise Refusal("not_found", message, field="service_account_id")


async def _end(tx: Transaction, api_key_id: str, reason: EndReason, now: datetime) -> None:
    """Store that a key has ended, and inform every service that accepts tokens that were made from it."""
    await tx.api_keys.end(api_key_id, reason, now)
    await tx.revocations.add(Revocation.of_api_key(api_key_id, reason.value), now)


def _owner_kept_out(key: ApiKey, field: str) -> Refusal:
    """The refusal of a new key whose owner may not come in. A person is the caller, blocked a moment ago."""
    if key.of_person:
        return _access_ended()
    message = "the service account is blocked or has ended; have an operator remove the block, or use another account"
    return Refusal("not_found", message, field=field)


def _access_ended() -> Refusal:
    return Refusal("token_revoked", "your access has ended; sign in again")


def _why_not(owned: OwnedKey | None, use: Use, now: datetime) -> Refusal | None:
    if owned is None or not owned.works(now):
        return _unknown_key()
    if use is Use.WORKER and not owned.key.scopes >= WORKER_SCOPES:
        message = "the key lacks the scope workers.attach, which workers need; make one with it"
        return Refusal("missing_scope", message, field="api_key", metadata={"scope": Scope.WORKERS_ATTACH.value})
    return None


async def _may_give(tx: Transaction, principal: StandingPrincipal, key: ApiKey) -> Scopes:
    """What the caller may do in the org of a key, which for a person's own key need not be that of the session."""
    if key.org_id == principal.org_id:
        return principal.effective_scopes
    owned = await tx.api_keys.standing(key.api_key_id)
    return (owned.standing if owned else None) or frozenset()


def _mine(principal: StandingPrincipal, key: ApiKey | None) -> ApiKey:
    """The key, if it is the caller's own, or of the caller's org. Raises Refusal `not_found` for another's key."""
    own = key is not None and key.of_person and key.owner == principal.subject
    of_org = key is not None and not key.of_person and key.org_id == principal.org_id
    if key is None or not (own or of_org):
        raise Refusal("not_found", "there is no such key of yours or of your org; list them", field="api_key_id")
    return key


def _own(principal: StandingPrincipal) -> str:
    if principal.kind is not PrincipalKind.USER:
        raise Refusal("missing_scope", "only people have keys of their own; name a service account")
    return principal.subject


def _unknown_key() -> Refusal:
    return Refusal("invalid_api_key", "the API key is unknown or has ended; make a new one", field="api_key")
