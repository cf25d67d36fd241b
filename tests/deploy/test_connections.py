"""The sum that an operator sets `max_connections` by counts every connection that a service opens."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.stack import Stack
from oa_testing.postgres import REPOSITORY
from oa_testing.waiting import PATIENCE_S

PAGE = REPOSITORY / "docs" / "operations" / "scaling.md"
ROLES = {"control": "control_app", "runtime": "runtime_app", "projector": "projector_app"}
_TERM = re.compile(r"(?:(\d+) \* )?\(replicas of (\w+) \+ 1\)")
_OWN = "FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
OF_THE_ROLE = f"SELECT DISTINCT application_name {_OWN}"
BESIDE = f"SELECT count(*) {_OWN} AND application_name = $1"


def _counted() -> dict[str, int]:
    """The connections outside of its pool that the page counts for a replica of each service."""
    return {service: int(times or 1) for times, service in _TERM.findall(PAGE.read_text("utf-8"))}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", ROLES)
async def test_connections_beside_the_pool_are_in_the_sum(service: str, shared_stack: Stack) -> None:
    secrets = load_or_create(shared_stack.home / "secrets")
    connection = await asyncpg.connect(role_dsn(ROLES[service], shared_stack.ports, secrets))
    try:
        async with asyncio.timeout(PATIENCE_S):  # one that was cut off is opened again
            while await connection.fetchval(BESIDE, f"{service}-listener") != _counted().get(service, 0):
                await asyncio.sleep(0.1)
        names = await connection.fetch(OF_THE_ROLE)
        assert {row["application_name"] for row in names} <= {"", service, f"{service}-listener"}
    finally:
        await connection.close()
