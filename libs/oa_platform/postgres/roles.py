"""The role that a service signs in with may use its schema, and nothing else: production refuses more."""

from __future__ import annotations

from collections.abc import Iterable

from oa_base.refusal import Refusal
from oa_platform.config.loading import groups_of
from oa_platform.config.shared import DatabaseSettings, ServiceSettings
from oa_platform.postgres.pool import target_of
from oa_platform.postgres.servers import RawConnection, connect

_ASK = """
SELECT session_user AS name,
       ARRAY(
           SELECT power FROM pg_roles AS r, LATERAL (VALUES
               ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
               ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)
           ) AS powers (power, has)
           WHERE has AND pg_has_role(session_user, r.oid, 'MEMBER')
             AND NOT (r.rolname <> session_user AND (SELECT rolsuper FROM pg_roles WHERE rolname = session_user))
           GROUP BY power ORDER BY power
       ) AS powers,
       ARRAY(
           SELECT nspname::text FROM pg_namespace
           WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND pg_has_role(session_user, nspowner, 'MEMBER')
           ORDER BY nspname
       ) AS schemas
"""
"""Who has signed in, and which powers and schemas it has. What a role has by itself or by another one that it may act
as. The owner of a database owns its schema public."""
_HINT = "sign in as a role that owns nothing and may use the service's schema alone"


async def check_roles(settings: ServiceSettings) -> None:
    """Raise Refusal(invalid_setting) when a service signs in to its database as a superuser or an owner of schemas.

    Waits for the database as a pool does.
    """
    for one in groups_of(settings):
        if isinstance(one, DatabaseSettings):
            connection = await connect(target_of(one, settings.service), one.start_timeout_s, "OA_DATABASE_URL")
            try:
                await _check(connection)
            finally:
                await connection.close()


async def _check(connection: RawConnection) -> None:
    row = await connection.fetchrow(_ASK)
    assert row is not None
    if row["powers"]:
        _refuse(f"{row['name']!r}, which has {_joined(row['powers'])}")
    if row["schemas"]:
        _refuse(f"{row['name']!r}, which owns {_joined(row['schemas'])}")


def _refuse(role: str) -> None:
    raise Refusal("invalid_setting", f"OA_DATABASE_URL signs in as {role}; {_HINT}", field="OA_DATABASE_URL")


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
