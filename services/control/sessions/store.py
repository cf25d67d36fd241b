"""Sessions in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.housekeeping.limits import MAX_SWEPT_ROWS
from services.control.policy.domain import Role
from services.control.sessions.domain import (
    FOR_SAFETY,
    REVOKED_SHOWN_FOR,
    SESSION_IDLE_TTL,
    SESSION_MAX_TTL,
    RevokeReason,
    Session,
    StandingSession,
)
from services.control.sessions.limits import MAX_LISTED

_COLUMNS = """s.session_id, s.user_id, s.org_id, s.device_id, s.created_at, s.refreshed_at, s.counter,
    s.used_counter, s.revoked_at, s.revoke_reason, s.signed_in_again_at"""

ADD = """
INSERT INTO control.sessions (session_id, user_id, org_id, device_id, counter, created_at, refreshed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""
"""Stores a new session."""

LOCKED = f"SELECT {_COLUMNS} FROM control.sessions s WHERE session_id = $1 FOR UPDATE"  # noqa: S608 - constants
"""A session, locked for a change."""

OF_DEVICE = f"""
SELECT {_COLUMNS} FROM control.sessions s
WHERE user_id = $1 AND device_id = $2 AND revoked_at IS NULL ORDER BY session_id FOR UPDATE"""  # noqa: S608
"""The sessions of a person that a new one on the same device ends."""

OF_PERSON = f"""
SELECT {_COLUMNS} FROM control.sessions s
WHERE user_id = $1 AND revoked_at IS NULL AND refreshed_at > $2 AND coalesce(signed_in_again_at, created_at) > $3
ORDER BY session_id FOR UPDATE"""  # noqa: S608
"""All sessions of a person that can still be ended, without those that have ended by age: years of sign-ins leave
thousands of these, and have no token that is still valid."""

KNOWN_DEVICE = """
SELECT EXISTS (SELECT 1 FROM control.sessions s JOIN control.users u USING (user_id)
               WHERE s.device_id = $2 AND u.email = $1)
   AND NOT EXISTS (SELECT 1 FROM control.sessions s JOIN control.users u USING (user_id)
                   WHERE s.device_id = $2 AND u.email = $1
                     AND s.revoke_reason = ANY($3))"""
"""Whether an account has been used on a device that is still believed to be its person's."""

SAVE = """
UPDATE control.sessions
SET counter = $2, refreshed_at = $3, revoked_at = $4, revoke_reason = $5, signed_in_again_at = $6
WHERE session_id = $1"""
"""Stores a session after a refresh, a sign-in or its end."""

SWITCH = "UPDATE control.sessions SET org_id = $2 WHERE session_id = $1"
"""Lets a session act in another org."""

FALL_BACK = """
WITH acting AS (
    SELECT session_id, user_id FROM control.sessions
    WHERE org_id = $1 AND ($2 = '' OR user_id = $2) AND revoked_at IS NULL ORDER BY session_id FOR UPDATE
)
UPDATE control.sessions s SET org_id = o.org_id
FROM acting a JOIN control.orgs o ON o.personal_of = a.user_id WHERE s.session_id = a.session_id"""
"""Lets the sessions that act in an org act in their person's own org. Locks them in the same order as every statement
that locks several sessions."""

MARK_USED = "UPDATE control.sessions SET used_counter = $2 WHERE session_id = $1 AND used_counter < $2"
"""Records that a counter's access token was let in. The counter only grows, in whatever order calls come in."""

LISTED = f"""
SELECT * FROM (
    SELECT {_COLUMNS} FROM control.sessions s
    WHERE user_id = $1
      AND CASE WHEN revoked_at IS NOT NULL THEN revoked_at >= $4
          ELSE refreshed_at > $2 AND coalesce(signed_in_again_at, created_at) > $3 END
    ORDER BY revoked_at IS NOT NULL, created_at DESC, session_id DESC LIMIT $5
) AS listed ORDER BY created_at DESC, session_id DESC"""  # noqa: S608
"""The newest sessions of a person, without those that have ended by age. Those that were revoked take up only the room
that the others leave."""

STANDING = f"""
SELECT {_COLUMNS}, m.role, u.blocked_at IS NOT NULL AS blocked FROM control.sessions s
JOIN control.users u ON u.user_id = s.user_id
LEFT JOIN control.memberships m ON m.org_id = s.org_id AND m.user_id = s.user_id
WHERE s.session_id = ANY($1::text[])"""  # noqa: S608
"""Sessions with their persons' roles: all that is needed to admit calls, in one round trip."""

STANDING_IN = f"""
SELECT o.delete_at IS NULL AS org_open, {_COLUMNS}, m.role, u.blocked_at IS NOT NULL AS blocked FROM control.orgs o
LEFT JOIN (control.sessions s JOIN control.users u ON u.user_id = s.user_id) ON s.session_id = $1
LEFT JOIN control.memberships m ON m.org_id = s.org_id AND m.user_id = s.user_id
WHERE o.org_id = $2"""  # noqa: S608
"""The same, and whether a given org is not deleted. The session may act in another org by now."""


SWEEP = """
WITH page AS (
    SELECT session_id FROM control.sessions WHERE session_id > $1 ORDER BY session_id LIMIT $8
), gone AS (
    DELETE FROM control.sessions WHERE session_id = ANY(ARRAY(
        SELECT s.session_id FROM control.sessions s
        WHERE s.session_id = ANY(ARRAY(SELECT session_id FROM page))
          AND CASE WHEN s.revoked_at IS NULL
              THEN s.refreshed_at < $2 OR coalesce(s.signed_in_again_at, s.created_at) < $3
              ELSE s.revoked_at < CASE s.revoke_reason WHEN $6 THEN $5::timestamptz ELSE $4::timestamptz END END
          AND NOT (coalesce(s.revoke_reason = ANY($7), false) AND EXISTS (
              SELECT 1 FROM control.sessions o WHERE o.device_id = s.device_id AND o.user_id = s.user_id
              AND (o.revoke_reason IS NULL OR o.revoke_reason <> ALL($7))))
        FOR UPDATE SKIP LOCKED))
)
SELECT max(session_id) FROM page HAVING count(*) = $8"""
"""Removes sessions that ended long ago, of the next ones after an id: by age ($2, $3), revoked ($4), or by operators
($5, $6). One that was ended for safety stays as long as another one makes its device known: without it, the device
would be believed again. A locked row is in use: it is skipped."""


class PostgresSessions:
    """See `app.SessionStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, session: Session) -> None:
        await self._connection.execute(
            ADD,
            session.session_id,
            session.user_id,
            session.org_id,
            session.device_id,
            session.counter,
            session.created_at,
            session.refreshed_at,
        )

    async def locked(self, session_id: str) -> Session | None:
        row = await self._connection.fetchrow(LOCKED, session_id)
        return _session(row) if row else None

    async def of_device(self, user_id: str, device_id: str) -> Sequence[Session]:
        return [_session(row) for row in await self._connection.fetch(OF_DEVICE, user_id, device_id)]

    async def known_device(self, email: str, device_id: str) -> bool:
        known: bool = await self._connection.fetchval(KNOWN_DEVICE, email, device_id, FOR_SAFETY)
        return known

    async def of_person(self, user_id: str, now: datetime) -> Sequence[Session]:
        since = (now - SESSION_IDLE_TTL, now - SESSION_MAX_TTL)
        return [_session(row) for row in await self._connection.fetch(OF_PERSON, user_id, *since)]

    async def save(self, session: Session) -> None:
        await self._connection.execute(
            SAVE,
            session.session_id,
            session.counter,
            session.refreshed_at,
            session.revoked_at,
            session.revoke_reason,
            session.signed_in_again_at,
        )

    async def switch(self, session_id: str, org_id: str) -> None:
        await self._connection.execute(SWITCH, session_id, org_id)

    async def fall_back(self, org_id: str, user_id: str = "") -> None:
        await self._connection.execute(FALL_BACK, org_id, user_id)

    async def sweep(self, after: str, ended_before: datetime, by_operators_before: datetime) -> str:
        return (
            await self._connection.fetchval(
                SWEEP,
                after,
                ended_before - SESSION_IDLE_TTL,
                ended_before - SESSION_MAX_TTL,
                ended_before,
                by_operators_before,
                RevokeReason.ADMIN_REVOKED,
                FOR_SAFETY,
                MAX_SWEPT_ROWS,
            )
            or ""
        )

    async def mark_used(self, session_id: str, counter: int) -> None:
        await self._connection.execute(MARK_USED, session_id, counter)

    async def listed(self, user_id: str, now: datetime) -> Sequence[Session]:
        since = (now - SESSION_IDLE_TTL, now - SESSION_MAX_TTL, now - REVOKED_SHOWN_FOR)
        rows = await self._connection.fetch(LISTED, user_id, *since, MAX_LISTED)
        return [_session(row) for row in rows]

    async def standing(self, session_id: str) -> StandingSession | None:
        return (await self.standings([session_id])).get(session_id)

    async def standings(self, session_ids: Sequence[str]) -> Mapping[str, StandingSession]:
        rows = await self._connection.fetch(STANDING, session_ids)
        return {row["session_id"]: _standing(row) for row in rows}

    async def standing_in(self, session_id: str, org_id: str) -> tuple[bool, StandingSession | None]:
        row = await self._connection.fetchrow(STANDING_IN, session_id, org_id)
        if row is None:
            return False, None
        return row["org_open"], _standing(row) if row["session_id"] else None


def _standing(row: asyncpg.Record) -> StandingSession:
    return StandingSession(_session(row), Role(row["role"]) if row["role"] else None, row["blocked"])


def _session(row: asyncpg.Record) -> Session:
    return Session(
        session_id=row["session_id"],
        user_id=row["user_id"],
        org_id=row["org_id"],
        device_id=row["device_id"],
        created_at=row["created_at"],
        refreshed_at=row["refreshed_at"],
        counter=row["counter"],
        used_counter=row["used_counter"],
        revoked_at=row["revoked_at"],
        revoke_reason=row["revoke_reason"],
        signed_in_again_at=row["signed_in_again_at"],
    )
