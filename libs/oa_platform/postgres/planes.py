"""The roles and schemas in the database, as SQL: one of each for each plane, and no way from one plane to another.

`oa_owner` owns the schemas and runs migrations. Each service that has data signs in with a role of its own, which
may use one schema and nothing else: invariant 2 ("no cross-plane write, no cross-plane join") holds because
Postgres refuses, whatever the code says.

Nothing here connects to a server. Every statement but `creation` may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

OWNER = "oa_owner"
"""The role that migrations run as."""
DATABASE = "openagents"


@dataclass(frozen=True)
class Plane:
    """A service's place in the database."""

    service: str
    schema: str
    role: str


PLANES = (
    Plane("control", "control", "control_app"),
    Plane("runtime", "runtime", "runtime_app"),
    Plane("projector", "projection", "projector_app"),
)
ROLES = (OWNER, *(plane.role for plane in PLANES))

_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# The rights of a plane's role on the objects that migrations create in its schema.
_DEFAULT_RIGHTS = (
    ("SELECT, INSERT, UPDATE, DELETE", "TABLES"),
    ("USAGE, SELECT", "SEQUENCES"),
    ("EXECUTE", "ROUTINES"),
)


def role_statements() -> list[str]:
    """Statements that make the login roles, without passwords, and that close a server's initial databases to them."""
    return [
        *(statement for role in ROLES for statement in (_create_role(role), f"ALTER ROLE {role} {_ATTRIBUTES}")),
        *(f"ALTER ROLE {plane.role} SET search_path = {plane.schema}" for plane in PLANES),
        # Every database lets everybody in by default; these two hold nothing of ours.
        "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC",
    ]


def _create_role(role: str) -> str:
    # There is no CREATE ROLE IF NOT EXISTS.
    return (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') "
        f"THEN CREATE ROLE {role}; END IF; END $$"
    )


def password_statement(role: str, literal: str) -> str:
    """The statement that sets a role's password, which the server has quoted. Only this statement contains it."""
    return f"ALTER ROLE {role} PASSWORD {literal}"


def creation(name: str, template: str = "") -> str:
    """The statement that makes the database `name` of `oa_owner`, empty or as a copy of another one."""
    # FILE_COPY: four times as fast as the default for a small template when fsync is off.
    source = f" TEMPLATE {quoted(template)} STRATEGY FILE_COPY" if template else ""
    return f"CREATE DATABASE {quoted(name)} OWNER {OWNER}{source}"


def database_statements(name: str) -> list[str]:
    """Statements that let only `oa_owner` and the planes' roles enter the database `name`, whoever made it."""
    roles = ", ".join(plane.role for plane in PLANES)
    return [
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {quoted(name)} FROM PUBLIC",
        f"GRANT CONNECT, CREATE ON DATABASE {quoted(name)} TO {OWNER}",
        f"GRANT CONNECT ON DATABASE {quoted(name)} TO {roles}",
    ]


def schema_statements() -> list[str]:
    """Statements that make each plane's schema in the connected database, with grants for objects of later migrations.

    A migration may take rights away again (`REVOKE UPDATE ON runtime.events …`); these are the defaults.
    """
    everywhere = [
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE EXECUTE ON ROUTINES FROM PUBLIC",
        # Large objects are in no schema: a role that may make one can keep data outside of its plane.
        "REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC",
    ]
    return everywhere + [statement for plane in PLANES for statement in _schema(plane)]


def _schema(plane: Plane) -> list[str]:
    defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA {plane.schema}"
    return [
        f"CREATE SCHEMA IF NOT EXISTS {plane.schema} AUTHORIZATION {OWNER}",
        f"GRANT USAGE ON SCHEMA {plane.schema} TO {plane.role}",
        *(f"{defaults} GRANT {rights} ON {kind} TO {plane.role}" for rights, kind in _DEFAULT_RIGHTS),
    ]


def sql_inside(name: str) -> str:
    """All statements for a server whose database `name` exists and is connected; a superuser runs them."""
    return _script([*role_statements(), *database_statements(name), *schema_statements()])


def psql_script(name: str) -> str:
    """All statements for a new server, for psql: also for the database, and with notes on how to set the passwords."""
    # psql runs the statement in the row, if there is one.
    missing = f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"
    create = f"SELECT '{creation(name)}' {missing} \\gexec\n"
    return (
        "-- Run as a superuser: psql --set=ON_ERROR_STOP=1 --file=THIS_FILE postgresql://HOST/postgres\n"
        "-- It may be run again. Afterwards, give each role its password:\n"
        + "".join(f"--   \\password {role}\n" for role in ROLES)
        + _script(role_statements())
        + create
        + f"\\connect {quoted(name)}\n"
        + _script([*database_statements(name), *schema_statements()])
    )


def _script(statements: list[str]) -> str:
    return "".join(f"{statement};\n" for statement in statements)


def quoted(identifier: str) -> str:
    """A name as a quoted identifier of SQL."""
    return '"' + identifier.replace('"', '""') + '"'
