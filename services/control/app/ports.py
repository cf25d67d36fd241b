"""What the use cases need from the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from oa_base.clock import Clock
from oa_base.rate import Rate
from services.control.domain.audit import AuditEntry, Origin
from services.control.domain.challenge import Challenge, Ended
from services.control.domain.claims import Claims
from services.control.domain.org import Membership, ServiceAccount, User
from services.control.domain.principal import StandingPrincipal
from services.control.domain.scopes import Role
from services.control.domain.session import Session


class Entropy(Protocol):
    """Where ids and secrets come from."""

    def new_id(self, prefix: str) -> str:
        """A new id, for example `new_id("ses")`."""
        ...

    def number_below(self, bound: int) -> int:
        """A number that nobody can guess, 0 <= number < bound."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        ...


class Mailer(Protocol):
    """Delivers sign-in codes."""

    async def send_code(self, email: str, code: str, expires_at: datetime) -> None:
        """Hand the code over for delivery. Raises Refusal `unavailable` when that was not possible."""
        ...


class TokenSigner(Protocol):
    """Signs claims with control's current key."""

    def sign(self, claims: Claims) -> str:
        """The JWT."""
        ...


class TokenVerifier(Protocol):
    """Checks tokens that control itself signed."""

    async def verify_access(self, token: str) -> Mapping[str, object]:
        """Claims of an access token for the edge. Raises Refusal with the catalogue's reason for any other."""
        ...


class RunOwnership(Protocol):
    """Asks runtime who owns a run."""

    async def org_of_run(self, principal: StandingPrincipal, run_id: str, origin: Origin) -> str | None:
        """Org that owns the run, None when there is no such run for `principal`.

        Raises Refusal `unavailable` when runtime can't be asked: not knowing is not a refusal of the topic.
        """
        ...


class Challenges(Protocol):
    """Sign-in codes."""

    async def live(self, email: str) -> Challenge | None:
        """The address's one challenge that has not ended (it may have expired), locked."""
        ...

    async def email_of(self, challenge_id: str) -> str | None:
        """Address of a challenge, without locking it."""
        ...

    async def locked(self, challenge_id: str) -> Challenge | None:
        """The challenge, locked until the transaction ends."""
        ...

    async def add(self, challenge: Challenge) -> None:
        """Store a new one."""
        ...

    async def save(self, challenge: Challenge) -> None:
        """Store what became of it: guesses and end."""
        ...

    async def end(self, challenge_id: str, ended: Ended) -> None:
        """End it, unless it has ended."""
        ...


class People(Protocol):
    """Users, orgs and memberships."""

    async def by_email(self, email: str) -> User | None:
        """The person with the address."""
        ...

    async def add(self, user: User, org_name: str, now: datetime) -> None:
        """Store a new person with an org of its own, as its owner."""
        ...

    async def email(self, user_id: str) -> str:
        """The person's address, empty if there is no such person."""
        ...

    async def memberships(self, user_id: str) -> Sequence[Membership]:
        """The person's orgs, the own one first."""
        ...


class Sessions(Protocol):
    """Sessions."""

    async def add(self, session: Session) -> None:
        """Store a new one."""
        ...

    async def locked(self, session_id: str) -> Session | None:
        """The session, locked until the transaction ends."""
        ...

    async def of_device(self, user_id: str, device_id: str) -> Sequence[Session]:
        """The person's sessions on the device that were not revoked, locked."""
        ...

    async def save(self, session: Session) -> None:
        """Store what became of it: counter, refresh, revocation."""
        ...

    async def mark_used(self, session_id: str, counter: int) -> None:
        """Record that an access token of this counter was let in, unless a newer one was before."""
        ...

    async def listed(self, user_id: str, revoked_since: datetime) -> Sequence[Session]:
        """The person's sessions, the newest first, without those revoked before `revoked_since`."""
        ...

    async def standing(self, session_id: str) -> tuple[Session, Role | None] | None:
        """The session and the person's role now in the session's org."""
        ...


class ServiceAccounts(Protocol):
    """Service accounts and the hashes of their keys."""

    async def add(self, account: ServiceAccount, key_hash: bytes, created_by: str) -> None:
        """Store a new one."""
        ...

    async def by_key(self, key_hash: bytes) -> ServiceAccount | None:
        """The account of a key, revoked or not."""
        ...

    async def get(self, service_account_id: str) -> ServiceAccount | None:
        """The account."""
        ...

    async def locked(self, service_account_id: str) -> ServiceAccount | None:
        """The account, locked until the transaction ends."""
        ...

    async def count_live(self, org_id: str) -> int:
        """How many accounts of the org were not revoked. Locks the org, so that the number stays right."""
        ...

    async def revoke(self, service_account_id: str, now: datetime) -> None:
        """End it, unless it has ended."""
        ...

    async def listed(self, org_id: str) -> Sequence[ServiceAccount]:
        """The org's accounts, the newest first."""
        ...


class Rates(Protocol):
    """Rate limits, shared by all replicas."""

    async def take(self, bucket: str, rate: Rate, now: datetime) -> timedelta | None:
        """Take one; None if there was room, otherwise how long until there is. Locks the bucket till the end."""
        ...

    async def lock(self, bucket: str, now: datetime) -> None:
        """Lock the bucket till the end, taking nothing."""
        ...

    async def reset(self, bucket: str) -> None:
        """Give all of the bucket's room back."""
        ...


class Audit(Protocol):
    """The audit trail, written in the transaction of what it records."""

    async def add(self, entry: AuditEntry, now: datetime) -> None:
        """Record it."""
        ...


class Transaction(Protocol):
    """One database transaction."""

    @property
    def challenges(self) -> Challenges: ...
    @property
    def people(self) -> People: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def service_accounts(self) -> ServiceAccounts: ...
    @property
    def rates(self) -> Rates: ...
    @property
    def audit(self) -> Audit: ...


class Store(Protocol):
    """The control schema."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commits when the block ends, rolls back when it raises.

        Raises Refusal `unavailable` when the database can't be reached.
        """
        ...

    def reading(self) -> AbstractAsyncContextManager[Transaction]:
        """For single statements: no transaction around them, so two round trips to the database less."""
        ...


@dataclass(frozen=True)
class World:
    """Everything that use cases share. `hmac_key` hashes codes and API keys and signs refresh tokens."""

    store: Store
    clock: Clock
    entropy: Entropy
    signer: TokenSigner
    hmac_key: bytes
