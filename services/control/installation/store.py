"""All orgs in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from oa_platform.postgres.pool import Connection
from services.control.installation.domain import InstallationOrg
from services.control.orgs.domain import Org

_COLUMNS = """
    o.org_id, o.name, o.personal_of IS NOT NULL AS personal, o.created_at, o.delete_at, o.gone_at,
    (SELECT count(*) FROM control.memberships c WHERE c.org_id = o.org_id) AS members,
    (SELECT count(*) FROM control.service_accounts a
     WHERE a.org_id = o.org_id AND a.revoked_at IS NULL) AS service_accounts"""
GET = f"SELECT {_COLUMNS} FROM control.orgs o WHERE o.org_id = $1"  # noqa: S608 - constants
"""An org."""
PAGE = f"""
SELECT {_COLUMNS} FROM control.orgs o
WHERE o.personal_of IS NULL AND o.gone_at IS NULL AND o.org_id > $1 AND (NOT $3 OR o.delete_at IS NOT NULL)
ORDER BY o.org_id LIMIT $2"""  # noqa: S608
"""Orgs after a given one."""
PAGE_OF = f"""
SELECT {_COLUMNS} FROM control.memberships m JOIN control.orgs o USING (org_id)
WHERE m.user_id = $4 AND m.org_id > $1 AND (NOT $3 OR o.delete_at IS NOT NULL)
ORDER BY m.org_id LIMIT $2"""  # noqa: S608
"""Orgs of a person after a given one."""


class PostgresInstallationOrgs:
    """See `app.InstallationOrgStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, org_id: str) -> InstallationOrg | None:
        row = await self._connection.fetchrow(GET, org_id)
        return _org(row) if row else None

    async def page(self, after_org_id: str, limit: int, *, deleted: bool) -> Sequence[InstallationOrg]:
        return [_org(row) for row in await self._connection.fetch(PAGE, after_org_id, limit, deleted)]

    async def page_of(self, user_id: str, after_org_id: str, limit: int, *, deleted: bool) -> Sequence[InstallationOrg]:
        return [_org(row) for row in await self._connection.fetch(PAGE_OF, after_org_id, limit, deleted, user_id)]


def _org(row: asyncpg.Record) -> InstallationOrg:
    org = Org(row["org_id"], row["name"], row["personal"], row["created_at"], row["delete_at"])
    return InstallationOrg(org, row["gone_at"], row["members"], row["service_accounts"])
