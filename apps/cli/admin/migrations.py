"""Migrations of all planes of an installation: which are applied, which are pending, and applying them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oa_platform.config.loading import load
from oa_platform.postgres.migrate import (
    URL_VARIABLE,
    MigrateSettings,
    Migration,
    check,
    migrate,
    read_applied,
    read_directory,
    steps,
)
from oa_platform.postgres.planes import PLANES
from oa_platform.postgres.preparation import migrations_of


@dataclass(frozen=True)
class PlaneMigrations:
    """One plane: the applied names, and the migrations that `up` would apply now; `later` waits for the second step."""

    service: str
    applied: Sequence[str]
    now: Sequence[Migration]
    later: Sequence[Migration]


async def look(env: Mapping[str, str], *, contract: bool) -> list[PlaneMigrations]:
    """Return the state of every plane. Raises Refusal migration_refused if record and files disagree, unavailable."""
    settings = load(MigrateSettings, env)
    found = []
    for plane in PLANES:
        files = read_directory(migrations_of(plane.service))
        applied = await read_applied(settings.url.reveal(), plane.service, settings.start_timeout_s)
        now = steps(files, applied, contract=contract)
        later = files[len(applied) + len(now) :]
        found.append(PlaneMigrations(plane.service, [one.name for one in applied], now, later))
    return found


async def verify(env: Mapping[str, str]) -> None:
    """Raise Refusal migration_refused unless this release's services could start on these schemas; unavailable."""
    settings = load(MigrateSettings, env)
    for plane in PLANES:
        files = migrations_of(plane.service)
        await check(settings.url.reveal(), plane.service, files, settings.start_timeout_s, URL_VARIABLE)


async def bring_up(env: Mapping[str, str], *, contract: bool) -> dict[str, list[str]]:
    """Apply pending migrations, plane by plane. Return service -> names applied now. Raises Refusal as `look`."""
    settings = load(MigrateSettings, env)
    url, timeout_s = settings.url.reveal(), settings.start_timeout_s
    return {
        plane.service: await migrate(url, plane.service, migrations_of(plane.service), timeout_s, contract=contract)
        for plane in PLANES
    }
