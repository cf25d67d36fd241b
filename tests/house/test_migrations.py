"""Migrations of tables that are in use leave them to those who write them, above all to the previous release."""

import re

import pytest

from oa_platform.postgres.migrate import Migration, read_directory
from tests.house.files import REPO

BEFORE = {"control": 15, "projector": 4, "runtime": 19}
"""Service -> the last of its migrations that were written before a migration could build an index concurrently."""
_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX (?P<how>CONCURRENTLY )?.*?\bON (?P<table>[a-z_.]+)", re.DOTALL)
_TABLE = re.compile(r"CREATE TABLE (?P<table>[a-z_.]+)")


def blocking(migration: Migration) -> list[str]:
    """The existing tables on which it builds an index while everybody who writes them waits."""
    new = {found["table"] for found in _TABLE.finditer(migration.statements)}
    indexed = {found["table"] for found in _INDEX.finditer(migration.statements) if not found["how"]}
    return sorted(indexed - new)


def test_indexes_of_existing_tables_are_built_concurrently() -> None:
    for service, last in BEFORE.items():
        migrations = read_directory(REPO / "services" / service / "migrations")
        assert {one.name: blocking(one) for one in migrations[last:] if blocking(one)} == {}


def test_a_blocking_index_is_seen() -> None:
    def found(sql: str) -> list[str]:
        return blocking(Migration(1, "0001_x.sql", "", sql))

    assert found("CREATE INDEX x ON control.users (email);") == ["control.users"]
    assert found("CREATE UNIQUE INDEX x\n    ON control.users (email);") == ["control.users"]
    assert found("CREATE TABLE control.new (x int); CREATE INDEX x ON control.new (x);") == []
    assert found("CREATE INDEX CONCURRENTLY IF NOT EXISTS x ON control.users (email);") == []
    assert found("-- CREATE INDEX x ON control.users (email);") == []


NEEDS_THE_NEW_RELEASE = (
    r"DROP (?:TABLE|COLUMN|TYPE|FUNCTION|SCHEMA|VIEW|SEQUENCE|TRIGGER)",
    r"RENAME",
    r"ALTER COLUMN [a-z_]+ (?:SET DATA )?TYPE",
    r"ALTER COLUMN [a-z_]+ SET NOT NULL",
    r"ALTER COLUMN [a-z_]+ DROP DEFAULT",
    r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL",
    r"ADD CONSTRAINT",
    r"ADD (?:CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY|EXCLUDE)",
    r"CREATE UNIQUE INDEX",
    r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER",
    r"REVOKE",
    r"TRUNCATE",
    r"DELETE FROM",
)
"""What takes something away from statements of the previous release, or refuses rows that it writes. On a table or
function of the same file it is harmless, because nobody uses that yet."""
_NEEDS = re.compile("|".join(f"(?:{one})" for one in NEEDS_THE_NEW_RELEASE))
_MADE = re.compile(r"CREATE (?:TABLE|FUNCTION) (?P<name>[a-z_.]+)")
_FUNCTION = re.compile(r"\$(?P<tag>[a-z_]*)\$.*?\$(?P=tag)\$|\bBEGIN ATOMIC\b.*?\bEND\b", re.DOTALL)
"""The body of a function, which is carried out for whoever calls it."""
LIVED_WITH = {
    # The previous release writes no account without an address, and no personal org that is to be deleted.
    "0019_deleted_accounts.sql": [
        "ALTER TABLE control.users ADD CONSTRAINT users_address_until_deletion",
        "ALTER TABLE control.orgs ADD CONSTRAINT orgs_personal_goes_without_its_name",
    ],
}
"""Migration -> the beginnings of its statements that the previous release can live with, for the reason above them."""


def not_expanding(migration: Migration) -> list[str]:
    """The statements with which the previous release may not be able to live."""
    if migration.contracts:
        return []
    made = [found["name"] for found in _MADE.finditer(migration.statements)]
    lived_with = LIVED_WITH.get(migration.name, [])
    statements = [" ".join(one.split()) for one in _FUNCTION.sub("", migration.statements).split(";")]
    return [
        one
        for one in statements
        if _NEEDS.search(one)
        and not any(re.search(rf"{re.escape(name)}\b", one) for name in made)
        and not one.startswith(tuple(lived_with))
    ]


def test_migrations_expand() -> None:
    """What the previous release can't live with is in NNNN_contract_….sql, and waits for the end of the upgrade."""
    for service, last in BEFORE.items():
        migrations = read_directory(REPO / "services" / service / "migrations")
        assert {one.name: not_expanding(one) for one in migrations[last:] if not_expanding(one)} == {}


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE control.users DROP COLUMN email",
        "ALTER TABLE control.users RENAME COLUMN email TO address",
        "ALTER TABLE control.users ALTER COLUMN email TYPE bytea USING email::bytea",
        "ALTER TABLE control.users ALTER COLUMN email SET NOT NULL",
        "ALTER TABLE control.users ADD COLUMN color text NOT NULL",
        "ALTER TABLE control.users\n    ADD COLUMN color text CHECK (color <> '') NOT NULL",
        "ALTER TABLE control.users ADD CONSTRAINT users_colored CHECK (color <> '')",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS x ON control.users (color)",
        "DROP FUNCTION control.record_if_acting",
        "REVOKE UPDATE ON control.users FROM control_app",
    ],
)
def test_what_the_previous_release_can_not_live_with_is_seen(sql: str) -> None:
    assert not_expanding(Migration(1, "0001_x.sql", "", sql + ";")) == [" ".join(sql.split())]
    assert not_expanding(Migration(1, "0001_contract_x.sql", "", sql + ";")) == []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE control.users ADD COLUMN color text",
        "ALTER TABLE control.users ADD COLUMN color text NOT NULL DEFAULT ''",
        "ALTER TABLE control.users ALTER COLUMN email DROP NOT NULL",
        "ALTER TABLE control.orgs DROP CONSTRAINT orgs_personal_stays",
        "CREATE TABLE control.new (x int); REVOKE UPDATE ON control.new FROM control_app",
        "CREATE FUNCTION control.new() RETURNS void AS $$ $$; REVOKE ALL ON FUNCTION control.new FROM PUBLIC",
        "CREATE OR REPLACE FUNCTION control.drop() RETURNS void AS $$ DELETE FROM control.users; $$",
        "-- DROP TABLE control.users",
    ],
)
def test_what_expands_is_let_through(sql: str) -> None:
    assert not_expanding(Migration(1, "0001_x.sql", "", sql + ";")) == []
