"""Migrations of tables that are in use leave them to those who write them."""

import re

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
