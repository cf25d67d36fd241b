"""Prepares the database of an installation for its migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oa_platform.config.loading import load, setting
from oa_platform.config.parsers import Secret, postgres_url
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import DATABASE, psql_script


@dataclass(frozen=True, kw_only=True)
class AdminDatabaseSettings:
    """What `oa admin database` reads."""

    url: Secret = setting(
        "OA_ADMIN_DATABASE_URL",
        postgres_url(),
        doc="URL of PostgreSQL with a superuser's role, for `oa admin database`.",
    )


async def prepare(env: Mapping[str, str], passwords: Mapping[str, str]) -> None:
    """Create roles (role -> password), database and schemas. Raises Refusal unavailable, invalid_setting."""
    url = load(AdminDatabaseSettings, env).url.reveal()
    await preparation.prepare(url, passwords)


def script() -> str:
    """Return the SQL of `prepare` for psql, without passwords."""
    return psql_script(DATABASE)
