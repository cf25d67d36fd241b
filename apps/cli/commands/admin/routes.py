"""`oa admin route …` and `oa admin maintenance …`: which side answers web requests, and whether the site is open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, maintenance_group, route_group
from apps.cli.times import UP_TO_A_DAY
from oa_client.core.schedules import milliseconds
from oa_client.cpython.operators.routes import Canary, RouteGroup, RouteOperators, Routes

_if_version = click.option(
    "--if-version",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Only if version N of the groups, as `list` shows it, is still present.",
)


@route_group.command("list", epilog="Example: oa admin route list")
@command
async def list_routes(cli: Cli) -> Exit:
    """Show the groups with their canaries, and whether the site is open."""
    async with operators(RouteOperators, cli.env) as at:
        found = await at.read()
    cli.output.document(found.document)
    cli.output.note(f"Version {found.version}. Change it only if nobody else has: --if-version {found.version}")
    _table(cli, found)
    if found.maintenance_notice is not None:
        cli.output.say(f"The site is closed: {found.maintenance_notice}", "yellow")
    return Exit.OK


@route_group.command("set", epilog="Example: oa admin route set app --prefix /app --percent 10")
@click.option(
    "--prefix", "prefixes", multiple=True, required=True, metavar="PATH", help="A path, with all paths below it."
)
@click.option("--pin", type=click.Choice(["shell", "legacy"]), default=None, help="Side that answers everybody.")
@click.option(
    "--percent", type=click.IntRange(0, 100), default=0, show_default=True, help="Percentage of people in the cohort."
)
@_if_version
@click.argument("name")
@command
async def set_route(
    cli: Cli, name: str, prefixes: Sequence[str], pin: str | None, percent: int, if_version: int | None
) -> Exit:
    """Add a group, or replace the one with its name. A canary of the group ends."""
    async with operators(RouteOperators, cli.env) as at:
        version = await at.set(RouteGroup(name, prefixes, pin or "", percent), if_version)
    return _changed(cli, version)


@route_group.command("delete", epilog="Example: oa admin route delete app")
@_if_version
@click.argument("name")
@command
async def delete_route(cli: Cli, name: str, if_version: int | None) -> Exit:
    """Delete a group. Its paths are answered as if it had never existed."""
    async with operators(RouteOperators, cli.env) as at:
        version = await at.delete(name, if_version)
    return _changed(cli, version)


@route_group.command("rollback", epilog="Example: oa admin route rollback --if-version 7")
@_if_version
@command
async def roll_back(cli: Cli, if_version: int | None) -> Exit:
    """Undo the last change to the groups; a canary is undone as a whole. Again: undo the change before that."""
    async with operators(RouteOperators, cli.env) as at:
        found = await at.roll_back(if_version)
    cli.output.document(found.document)
    cli.output.say(f"Version {found.version} is what was before the last change.")
    _table(cli, found)
    return Exit.OK


@route_group.command("canary", epilog="Example: oa admin route canary app --hold 10m")
@click.option("--hold", type=UP_TO_A_DAY, default=None, metavar="5m", help="Minimum time of a step; at most 24h.")
@click.option(
    "--min-requests",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Minimum number of requests of each side before a step is judged.",
)
@_if_version
@click.argument("name")
@command
async def canary(cli: Cli, name: str, hold: timedelta | None, min_requests: int | None, if_version: int | None) -> Exit:
    """Move a group to the shell in steps, as long as the shell answers as well as the legacy side."""
    hold_ms = milliseconds(hold) if hold is not None else 0
    async with operators(RouteOperators, cli.env) as at:
        canary_id = await at.start_canary(name, hold_ms, min_requests or 0, if_version)
    cli.output.document({"canary": canary_id})
    cli.output.say("The canary has begun. It goes back by itself; by hand: oa admin route rollback")
    return Exit.OK


@maintenance_group.command("on", epilog="Example: oa admin maintenance on --retry-after 30m")
@click.option("--notice", default="", metavar="TEXT", help="Notice that people see.")
@click.option(
    "--retry-after",
    type=UP_TO_A_DAY,
    default=None,
    metavar="5m",
    help="Time after which people should try again; at most 24h.",
)
@command
async def maintenance_on(cli: Cli, notice: str, retry_after: timedelta | None) -> Exit:
    """Close the site for everybody except operators with a bypass. If it is closed, change what people are told."""
    async with operators(RouteOperators, cli.env) as at:
        await at.start_maintenance(notice, milliseconds(retry_after) if retry_after is not None else 0)
    cli.output.document({"maintenance": True})
    cli.output.say("The site is closed. A way in: oa admin maintenance bypass. Open it: oa admin maintenance off")
    return Exit.OK


@maintenance_group.command("off", epilog="Example: oa admin maintenance off")
@command
async def maintenance_off(cli: Cli) -> Exit:
    """Open the site. Every bypass ends."""
    async with operators(RouteOperators, cli.env) as at:
        await at.end_maintenance()
    cli.output.document({"maintenance": False})
    cli.output.say("The site is open.")
    return Exit.OK


@maintenance_group.command("bypass", epilog="Example: oa admin maintenance bypass --for 2h")
@click.option(
    "--for", "ttl", type=UP_TO_A_DAY, default=None, metavar="1h", help="How long the bypass is valid; at most 24h."
)
@command
async def bypass(cli: Cli, ttl: timedelta | None) -> Exit:
    """Print a signed bypass for the closed site. It is a secret, valid for one maintenance: this one or the next."""
    async with operators(RouteOperators, cli.env) as at:
        text, expires_at = await at.create_bypass(milliseconds(ttl) if ttl is not None else 0)
    cli.output.document({"bypass": text, "expiresAt": expires_at})
    cli.output.say(text, whole=True)
    cli.output.note("Send it as the header x-oa-bypass, or open a page with ?oa-bypass= and it behind.")
    return Exit.OK


def _changed(cli: Cli, version: int) -> Exit:
    cli.output.document({"version": version})
    cli.output.say(f"Version {version} counts on every replica within seconds. Back: oa admin route rollback")
    return Exit.OK


def _table(cli: Cli, found: Routes) -> None:
    if not found.groups:
        cli.output.note("No groups. Make one: oa admin route set app --prefix /app --percent 10")
        return
    canaries = {one.group: one for one in found.canaries}
    rows = [
        [one.name, " ".join(one.prefixes), one.pinned or f"{one.percent} % shell", _state(canaries.get(one.name))]
        for one in found.groups
    ]
    cli.output.table(["group", "paths", "side", "canary"], rows)


def _state(canary: Canary | None) -> str:
    if canary is None:
        return ""
    return f"at {canary.percent} %" if not canary.outcome else " ".join(filter(None, (canary.outcome, canary.reason)))
