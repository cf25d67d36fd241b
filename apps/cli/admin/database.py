"""The database of an installation, made ready for its migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from oa_localstack.postgres import roles
from oa_platform.config.loading import load, setting
from oa_platform.config.parsers import Secret, postgres_url
from oa_platform.postgres.planes import DATABASE, psql_script


@dataclass(frozen=True, kw_only=True)
class AdminDatabaseSettings:
    """What `oa admin database` reads."""

    url: Secret = setting(
        "OA_ADMIN_DATABASE_URL", postgres_url(), doc="A superuser's way into PostgreSQL, for `oa admin database`."
    )


async def prepare(env: Mapping[str, str], passwords: Mapping[str, str]) -> None:
    """Make roles (role -> password), database and schemas. Raises Refusal unavailable, invalid_setting."""
    url = load(AdminDatabaseSettings, env).url.reveal()
    async with roles.admin_connection(url) as admin:
        await roles.prepare_cluster(admin, passwords)
        await roles.ensure_database(admin, DATABASE)
    async with roles.admin_connection(_in_database(url, DATABASE)) as admin:
        await roles.prepare_schemas(admin)


def script() -> str:
    """What `prepare` does, for psql; without passwords."""
    return psql_script(DATABASE)


def _in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
