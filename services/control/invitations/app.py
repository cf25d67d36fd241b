"""Inviting people into an org, and answering.

Locks are taken in one order: org, address, invitation, person. People who answer are identified by the address that
they signed in with, so an invitation needs no secret, and anybody may read its mail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.audit.domain import Action, Origin, address_digest
from services.control.invitations.domain.invitation import (
    Ended,
    Invitation,
    Made,
    Shown,
    new_invitation,
    no_such_invitation,
    require_answerable,
    require_few_open,
    require_inviter,
    require_room,
    resent,
)
from services.control.invitations.domain.letter import invitation_letter
from services.control.invitations.limits import KEPT_FOR
from services.control.mail import app as mail_app
from services.control.mail.domain.address import canonical_email
from services.control.mail.domain.letters import Kind, Letter, Mail
from services.control.members import app as members_app
from services.control.members.domain import require_may_give
from services.control.orgs.app import acting, done, reading
from services.control.orgs.domain import require_open, require_shared
from services.control.policy.domain import Role, Scope, StandingPrincipal
from services.control.transactions.app import Transactions


class InvitationStore(Protocol):
    """Invitations."""

    async def get(self, invitation_id: str) -> Invitation | None:
        """An invitation."""
        ...

    async def locked(self, invitation_id: str) -> Invitation | None:
        """The same, locked until the transaction ends."""
        ...

    async def made(self, org_id: str, email: str, invited_by: str, now: datetime) -> Made:
        """The counts against the limits of one more for the address, which is locked until the transaction ends."""
        ...

    async def replace(self, org_id: str, email: str) -> str:
        """End the address's unanswered invitation into the org. Return its id; empty if there is none."""
        ...

    async def add(self, invitation: Invitation) -> None:
        """Store a new invitation."""
        ...

    async def save(self, invitation: Invitation) -> None:
        """Store the changes of an invitation: its mails, and its end."""
        ...

    async def open_of_org(self, org_id: str, now: datetime) -> Sequence[Shown]:
        """The org's open invitations, newest first."""
        ...

    async def open_of_address(self, email: str, now: datetime) -> Sequence[Shown]:
        """The address's open invitations whose inviters may still invite, newest first."""
        ...

    async def sweep(self, expired_before: datetime) -> None:
        """Remove invitations that expired earlier, a limited number at a time."""
        ...


class Transaction(members_app.Transaction, mail_app.Transaction, Protocol):
    """A transaction with invitations."""

    @property
    def invitations(self) -> InvitationStore: ...


class Invitations:
    """Invitations into the caller's orgs, and to the caller's address. `mail_waits` is called for each new mail. Audit
    events have digests of addresses, made with `hmac_key`."""

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        hmac_key: bytes,
        mail_waits: Callable[[], None],
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._hmac_key = hmac_key
        self._mail_waits = mail_waits

    async def create(self, principal: StandingPrincipal, org_id: str, email: str, role: Role, origin: Origin) -> Shown:
        """Invite an address. The answer is the same for addresses with and without an account.

        Raises Refusal `invalid_value` for a text that is no address; `not_found`, `personal_org`, `org_deleted`,
        `missing_scope`, `org_scope_denied`; `already_exists` for a member; `limit_reached`, `rate_limited`.
        """
        address = canonical_email(email)
        async with self._transactions.begin() as tx:
            mine = await acting(tx, principal, org_id, Scope.MEMBERS_WRITE)
            require_shared(mine.org)
            require_may_give(mine.role, role, org_id)
            # Members see each other's addresses anyway, so this reveals nothing new.
            if await tx.members.has_address(org_id, address):
                raise Refusal("already_exists", "the address is a member's; set the member's role", field="email")
            now = self._clock.now()
            require_room(await tx.invitations.made(org_id, address, principal.subject, now))
            if replaced := await tx.invitations.replace(org_id, address):
                await tx.mail.drop(replaced)
            invitation = new_invitation(new_id("inv"), org_id, address, role, principal.subject, now)
            await tx.invitations.add(invitation)
            await self._send(tx, invitation, now)
            target = f"{invitation.invitation_id} {address_digest(self._hmac_key, address)}"
            await tx.audit.add(done(principal, Action.INVITATION_CREATED, origin, org_id, target, role.value), now)
            shown = Shown(invitation, mine.org.name, await tx.people.email(principal.subject))
        self._mail_waits()
        return shown

    async def open_for(self, address: str) -> bool:
        """Whether an invitation is open for the canonical address. It takes the same time for every address."""
        async with self._transactions.autocommit() as tx:
            return bool(await tx.invitations.open_of_address(address, self._clock.now()))

    async def list(self, principal: StandingPrincipal, org_id: str) -> Sequence[Shown]:
        """The org's open invitations, newest first. Raises Refusal `not_found`, `missing_scope`,
        `org_scope_denied`."""
        async with self._transactions.autocommit() as tx:
            await reading(tx, principal, org_id, Scope.MEMBERS_WRITE)
            return await tx.invitations.open_of_org(org_id, self._clock.now())

    async def resend(self, principal: StandingPrincipal, org_id: str, invitation_id: str, origin: Origin) -> Shown:
        """Send the mail once more. Raises Refusal as `create`."""
        async with self._transactions.begin() as tx:
            mine = await acting(tx, principal, org_id, Scope.MEMBERS_WRITE)
            require_open(mine.org)
            now = self._clock.now()
            before = await _of_org(tx, org_id, invitation_id)
            invitation = resent(before, principal.subject, now)
            require_may_give(mine.role, invitation.role, org_id)
            if not before.is_open(now):
                require_few_open(await tx.invitations.made(org_id, invitation.email, principal.subject, now))
            await tx.invitations.save(invitation)
            await tx.mail.drop(invitation_id)
            await self._send(tx, invitation, now)
            await tx.audit.add(done(principal, Action.INVITATION_RESENT, origin, org_id, invitation_id), now)
            shown = Shown(invitation, mine.org.name, await tx.people.email(principal.subject))
        self._mail_waits()
        return shown

    async def revoke(self, principal: StandingPrincipal, org_id: str, invitation_id: str, origin: Origin) -> None:
        """Revoke an invitation. Raises Refusal `not_found`, `missing_scope`, `org_scope_denied`."""
        async with self._transactions.begin() as tx:
            await acting(tx, principal, org_id, Scope.MEMBERS_WRITE)
            invitation = await _of_org(tx, org_id, invitation_id)
            if invitation.ended is not None:
                raise no_such_invitation()
            await self._end(tx, invitation, Ended.REVOKED)
            now = self._clock.now()
            await tx.audit.add(done(principal, Action.INVITATION_REVOKED, origin, org_id, invitation_id), now)

    async def own(self, principal: StandingPrincipal) -> Sequence[Shown]:
        """The open invitations to the caller's address. A service account has none."""
        async with self._transactions.autocommit() as tx:
            email = await _own_address(tx, principal)
            return await tx.invitations.open_of_address(email, self._clock.now()) if email else ()

    async def accept(self, principal: StandingPrincipal, invitation_id: str, origin: Origin) -> tuple[str, Role]:
        """Become a member. Return the org and the role. Raises Refusal `not_found`, `org_deleted`, `limit_reached`."""
        async with self._transactions.begin() as tx:
            email = await _own_address(tx, principal)
            now = self._clock.now()
            org_id = require_answerable(await tx.invitations.get(invitation_id), email, now).org_id
            org = await tx.orgs.locked_for_others(org_id)
            invitation = require_answerable(await tx.invitations.locked(invitation_id), email, now)
            inviter = await tx.members.get(org_id, invitation.invited_by)
            require_inviter(inviter, invitation.role)
            assert org is not None
            require_open(org)
            role = await members_app.join(tx, org_id, principal.subject, invitation.role, now)
            await self._end(tx, invitation, Ended.ACCEPTED)
            entry = done(principal, Action.INVITATION_ACCEPTED, origin, org_id, invitation_id, role.value)
            await tx.audit.add(entry, now)
            await members_app.tell_joined(tx, org_id, principal.subject, role, now)
        return org_id, role

    async def decline(self, principal: StandingPrincipal, invitation_id: str, origin: Origin) -> None:
        """Decline an invitation to the caller's address. Raises Refusal `not_found`."""
        async with self._transactions.begin() as tx:
            email = await _own_address(tx, principal)
            now = self._clock.now()
            invitation = require_answerable(await tx.invitations.locked(invitation_id), email, now)
            await self._end(tx, invitation, Ended.DECLINED)
            entry = done(principal, Action.INVITATION_DECLINED, origin, invitation.org_id, invitation_id)
            await tx.audit.add(entry, now)

    def letter(self, mail: Mail) -> Letter:
        """The letter about the mail's invitation."""
        return invitation_letter(mail)

    async def sweep(self) -> None:
        """Remove invitations that ended long ago."""
        async with self._transactions.autocommit() as tx:
            await tx.invitations.sweep(self._clock.now() - KEPT_FOR)

    async def _send(self, tx: Transaction, invitation: Invitation, now: datetime) -> None:
        mail = Mail(new_id("mal"), Kind.INVITATION, invitation.email, invitation.invitation_id, invitation.expires_at)
        await tx.mail.add(mail, now)

    async def _end(self, tx: Transaction, invitation: Invitation, ended: Ended) -> None:
        await tx.invitations.save(replace(invitation, ended=ended))
        await tx.mail.drop(invitation.invitation_id)


async def _of_org(tx: Transaction, org_id: str, invitation_id: str) -> Invitation:
    invitation = await tx.invitations.locked(invitation_id)
    if invitation is None or invitation.org_id != org_id:
        raise no_such_invitation()
    return invitation


async def _own_address(tx: Transaction, principal: StandingPrincipal) -> str:
    """The address that the caller signed in with; empty for a caller that is not a person."""
    return await tx.people.email(principal.subject) if principal.kind is PrincipalKind.USER else ""
