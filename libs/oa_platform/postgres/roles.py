"""Checks that a service's role may use its schema and nothing else: production refuses more rights, and fewer."""

from __future__ import annotations

from collections.abc import Iterable

from oa_base.refusal import Refusal
from oa_platform.config.loading import groups_of
from oa_platform.config.shared import DatabaseSettings, ServiceSettings
from oa_platform.postgres.at_start import waiting_for_database
from oa_platform.postgres.planes import PLANES
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
       ) AS schemas,
       ARRAY(
           SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
           WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm')
             AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(pg_class.oid, 'SELECT'))
           ORDER BY relname
       ) AS closed
"""
"""Reads which role has signed in, which powers and schemas it has, and which tables of its own schema it may not read.
Rights of another role that it may act as count as its own. The owner of a database owns its schema public."""
_HINT = "sign in as a role that owns nothing and may use the service's schema alone"
_GRANT_HINT = "sign in as the service's own role, and give it the grants that the migrations give"


async def check_roles(settings: ServiceSettings) -> None:
    """Raise Refusal(invalid_setting) when a service signs in to its database as a superuser or an owner of schemas.

    Also raises it when the service may not read a table of its own schema, because every migration lets its service
    read the tables that it makes. Waits for the database as a pool does.
    """
    schema = next((plane.schema for plane in PLANES if plane.service == settings.service), "")
    for one in groups_of(settings):
        if isinstance(one, DatabaseSettings):
            target = target_of(one, settings.service)
            with waiting_for_database(target.dsn) as on_wait:
                connection = await connect(target, one.start_timeout_s, "OA_DATABASE_URL", on_wait)
            try:
                await _check(connection, schema)
            finally:
                await connection.close()


async def _check(connection: RawConnection, schema: str) -> None:
    row = await connection.fetchrow(_ASK, schema)
    assert row is not None
    if row["powers"]:
        _refuse(f"{row['name']!r}, which has {_joined(row['powers'])}")
    if row["schemas"]:
        _refuse(f"{row['name']!r}, which owns {_joined(row['schemas'])}")
    if row["closed"]:
        _refuse(f"{row['name']!r}, which may not read {_joined(row['closed'])}", _GRANT_HINT)


def _refuse(role: str, hint: str = _HINT) -> None:
    raise Refusal("invalid_setting", f"OA_DATABASE_URL signs in as {role}; {hint}", field="OA_DATABASE_URL")


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
