"""Facts that a database server reports about itself, and complaints about a server that is not usable.

A server is usable if it takes writes, keeps what it has acknowledged, is new enough, stores every character, and is
reached without a pooler in between. Whether it has room for a pool is asked once, at a start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from oa_base.refusal import Refusal

MIN_MAJOR_VERSION = 16
"""The oldest PostgreSQL that is accepted."""
ENCODING = "UTF8"
ASK = """
SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only') = 'on' AS read_only,
       ARRAY(
           SELECT name FROM unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit']) AS name
           WHERE current_setting(name) = 'off'
       ) AS off,
       current_setting('server_version_num')::int / 10000 AS major_version,
       current_setting('server_encoding') AS encoding,
       (
           SELECT min(connections) FROM (VALUES
               (
                   current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                   - coalesce(current_setting('reserved_connections', true)::int, 0)
               ),
               ((SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user)),
               ((SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))
           ) AS limits (connections)
       ) AS room
"""
"""Asks a server about itself, about its safeguards, and about its room for connections."""


class Facts(NamedTuple):
    """The facts that a server reports about itself and about the session."""

    standby: bool = False
    read_only: bool = False
    off: tuple[str, ...] = ()
    """The settings that are off, although without them a crash may lose acknowledged data."""
    own_session: bool = True
    """Whether the session that answers is the one that was opened."""
    major_version: int = MIN_MAJOR_VERSION
    encoding: str = ENCODING
    room: int = 100
    """How many connections the server, the database and the role allow, including those that others have."""


def facts_of(row: Mapping[str, Any], *, own_session: bool) -> Facts:
    """The facts in the row of `ASK`."""
    return Facts(
        standby=row["standby"],
        read_only=row["read_only"],
        off=tuple(row["off"]),
        own_session=own_session,
        major_version=row["major_version"],
        encoding=row["encoding"],
        room=row["room"],
    )


class UnusableServer(ConnectionError):
    """A server that answers but is not usable."""

    def __init__(self, why: str, *, reason: str = "unavailable", blamed: str = "OA_DATABASE_URL") -> None:
        super().__init__(why)
        self.refusal = Refusal(reason, why, field=blamed)
        self.may_heal = reason == "unavailable"
        """Whether waiting may help; otherwise somebody has to act."""


class RefusedRole(UnusableServer):
    """A server that does not let the role in. `kind` is the name of the error, which tells why."""

    def __init__(self, where: str, kind: str, variable: str = "OA_DATABASE_URL") -> None:
        hint = f"correct {variable}" if variable else "give another one"
        why = f"the database at {where} refuses the role ({kind}); {hint}"
        super().__init__(why, reason="invalid_setting", blamed=variable)
        self.kind = kind


def complaint(facts: Facts, where: str, may_lose_commits: bool) -> UnusableServer | None:
    """Why a server is not usable; None if it is."""
    if not facts.own_session:
        return pooled(where)
    if facts.major_version < MIN_MAJOR_VERSION:
        return _unfit(
            f"the database at {where} is PostgreSQL {facts.major_version}; upgrade it to {MIN_MAJOR_VERSION} or newer"
        )
    if facts.encoding != ENCODING:
        return _unfit(
            f"the database at {where} has the encoding {facts.encoding}, which can't store every character; "
            f"make it anew with the encoding {ENCODING}"
        )
    if facts.standby:
        why = f"the database at {where} takes no writes now: it is a standby; promote it, or name the primary too"
        return UnusableServer(why)
    if facts.read_only:
        why = f"the database at {where} takes no writes now: default_transaction_read_only is on; turn it off"
        return UnusableServer(why)
    if facts.off and not may_lose_commits:
        return UnusableServer(_loses(facts.off, where), reason="invalid_setting", blamed="OA_DATABASE_MAY_LOSE_COMMITS")
    return None


def _loses(off: Sequence[str], where: str) -> str:
    names = " and ".join(off)
    verb, them = ("is", "it") if len(off) == 1 else ("are", "them")
    return (
        f"the database at {where} may lose what it has acknowledged: {names} {verb} off; turn {them} on, for the "
        "server and for the role, or set OA_DATABASE_MAY_LOSE_COMMITS=true if losses don't matter"
    )


def pooled(where: str) -> UnusableServer:
    text = (
        f"a connection pooler (PgBouncer or one like it) answers at {where}, and shares its sessions, which "
        "notifications, prepared statements and time limits don't bear; name the server itself in OA_DATABASE_URL"
    )
    return UnusableServer(text, reason="invalid_setting")


def full(where: str) -> UnusableServer:
    """A server that has as many connections as it allows."""
    text = (
        f"the database at {where} takes no more connections; raise max_connections of the server or the CONNECTION "
        "LIMIT of the database or the role, or lower OA_DATABASE_POOL_MAX"
    )
    return UnusableServer(text)


def _unfit(text: str) -> UnusableServer:
    return UnusableServer(text, reason="invalid_setting")


def no_room(facts: Facts, where: str, pool_max: int) -> UnusableServer | None:
    """Why a pool doesn't fit into a server, even if nobody else has a connection; None if it does."""
    if pool_max <= facts.room:
        return None
    text = (
        f"the database at {where} allows {facts.room} connections, and OA_DATABASE_POOL_MAX is {pool_max}; lower it, "
        "or raise max_connections of the server or the CONNECTION LIMIT of the database or the role"
    )
    return UnusableServer(text, reason="invalid_setting", blamed="OA_DATABASE_POOL_MAX")


def is_tight(facts: Facts, pool_max: int) -> bool:
    """Whether there is no room for two replicas, which run at the same time while one replaces the other."""
    return 2 * pool_max > facts.room
