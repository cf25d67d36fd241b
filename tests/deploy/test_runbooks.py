"""What runbooks tell people to type works: the SQL runs, under the role of the service that they are about."""

from __future__ import annotations

import re

import asyncpg
import pytest

from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.stack import Stack
from oa_testing.postgres import REPOSITORY

pytestmark = pytest.mark.asyncio(loop_scope="module")

_STATEMENT = re.compile(r"""-c (?:'([^']+)'|"([^"]+)")""")
_ROLES = {"projection.": "projector_app", "control.": "control_app"}


def _statements() -> list[tuple[str, str]]:
    """Page and statement, of every `psql … -c`, wherever it stands."""
    return [
        (page.stem, single or double)
        for page in sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
        for single, double in _STATEMENT.findall(page.read_text("utf-8"))
    ]


def _role(statement: str) -> str:
    return next((role for schema, role in _ROLES.items() if schema in statement), "runtime_app")


async def test_the_sql_in_runbooks_runs(shared_stack: Stack) -> None:
    statements = _statements()
    assert len(statements) >= 10
    secrets = load_or_create(shared_stack.home / "secrets")
    for page, statement in statements:
        connection = await asyncpg.connect(role_dsn(_role(statement), shared_stack.ports, secrets))
        try:
            await connection.fetch(statement)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{page}: {statement}: {error}")
        finally:
            await connection.close()
