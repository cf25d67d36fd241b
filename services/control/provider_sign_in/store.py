"""Sign-ins at identity providers, and the people whom the providers identify, in Postgres."""

from __future__ import annotations

from datetime import datetime

from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.orgs.domain import User
from services.control.provider_sign_in.domain import Begun, Identity

ADD = """
INSERT INTO control.provider_sign_ins (sign_in_id, provider, device_id, redirect_uri, created_at)
VALUES ($1, $2, $3, $4, $5)"""
"""Stores a new sign-in."""
LOCKED = """
SELECT sign_in_id, provider, device_id, redirect_uri, created_at, used_at
FROM control.provider_sign_ins WHERE sign_in_id = $1 FOR UPDATE"""
"""A sign-in, locked for use."""
USE = "UPDATE control.provider_sign_ins SET used_at = $2 WHERE sign_in_id = $1"
"""Marks a sign-in as used."""
SWEEP = """
DELETE FROM control.provider_sign_ins WHERE sign_in_id = ANY(ARRAY(
    SELECT sign_in_id FROM control.provider_sign_ins WHERE created_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))"""
"""Removes old sign-ins, except locked ones."""
PERSON = """
SELECT u.user_id, u.email, o.org_id FROM control.identities i JOIN control.users u USING (user_id)
JOIN control.orgs o ON o.personal_of = u.user_id WHERE i.issuer = $1 AND i.subject = $2 AND u.deleted_at IS NULL
FOR SHARE OF u"""
"""The person with an identity, and their own org. Nobody deletes the account until the transaction ends."""
ADD_IDENTITY = "INSERT INTO control.identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)"
"""Stores the person whom a provider identifies."""


class PostgresProviderSignIns:
    """See `app.ProviderSignInStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, begun: Begun) -> None:
        await self._connection.execute(
            ADD, begun.sign_in_id, begun.provider, begun.device_id, begun.redirect_uri, begun.created_at
        )

    async def locked(self, sign_in_id: str) -> Begun | None:
        row = await self._connection.fetchrow(LOCKED, sign_in_id)
        return Begun(**row) if row else None

    async def use(self, sign_in_id: str, now: datetime) -> None:
        await self._connection.execute(USE, sign_in_id, now)

    async def sweep(self, created_before: datetime) -> None:
        await self._connection.execute(SWEEP, created_before, MAX_SWEPT_ROWS)


class PostgresIdentities:
    """See `app.IdentityStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def person(self, identity: Identity) -> User | None:
        row = await self._connection.fetchrow(PERSON, identity.issuer, identity.subject)
        return User(row["user_id"], row["email"], row["org_id"]) if row else None

    async def add(self, identity: Identity, user_id: str, now: datetime) -> None:
        await self._connection.execute(ADD_IDENTITY, identity.issuer, identity.subject, user_id, now)
