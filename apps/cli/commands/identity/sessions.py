"""`oa session list|revoke`: where a person is signed in."""

from __future__ import annotations

from collections.abc import Collection

import click

from apps.cli.exits import Exit
from apps.cli.following.ids import Kind, Listed, meant
from apps.cli.program import Cli, command, session_group
from apps.cli.times import time_words
from oa_client.client import Client

_SESSION = Kind("session", "session_id", "oa session list", ("ses_",))
_DEVICE = Kind("device", "--device", "oa session list", ("dev_",))


@session_group.command("list", epilog="Example: oa session list --all")
@click.option("--all", "revoked", is_flag=True, help="Include those that were revoked in the last 30 days.")
@command
async def list_sessions(cli: Cli, revoked: bool) -> Exit:
    """List your sessions, newest first. An asterisk marks the one that you use now."""
    async with cli.site_of_person.client() as client:
        sessions = [each for each in await client.commands.sessions() if revoked or not each.revoked_at]
    for each in sessions:
        cli.output.document(each.document)
    rows = [
        [
            each.session_id,
            "*" if each.current else "",
            each.device_id,
            time_words(each.created_at),
            time_words(each.refreshed_at),
            each.revoke_reason,
        ]
        for each in sessions
    ]
    cli.output.table(["session", "", "device", "created", "refreshed", "revoked"], rows)
    return Exit.OK


@session_group.command("revoke", epilog="Example: oa session revoke --others")
@click.argument("session_id", required=False)
@click.option("--others", is_flag=True, help="End all but the one that you use now.")
@click.option("--all", "everywhere", is_flag=True, help="End all sessions, which signs you out here, too.")
@click.option("--device", metavar="DEVICE_ID", default="", help="End all of one device.")
@command
async def revoke(cli: Cli, session_id: str | None, others: bool, everywhere: bool, device: str) -> Exit:
    """End a session, or many at once. Everything that they have open ends within moments, everywhere.

    Runs go on; end them with oa run cancel.
    """
    if sum((bool(session_id), others, everywhere, bool(device))) != 1:
        raise click.UsageError("name one session, or give one of --others, --all and --device")
    async with cli.site_of_person.client() as client:
        if session_id:
            one = await meant(_SESSION, session_id, lambda: _listed(client))
            await client.commands.revoke_session(one)
            ended: Collection[str] = (one,)
        else:
            of_device = await meant(_DEVICE, device, lambda: _devices(client)) if device else ""
            ended = await client.commands.revoke_sessions(of_device, keep_current=others)
        _forget_own(client, ended)
    cli.output.say(f"Revoked {len(ended)} session{'' if len(ended) == 1 else 's'}.")
    for each in ended:
        cli.output.document({"sessionId": each, "revoked": True})
    return Exit.OK


async def _listed(client: Client) -> list[Listed]:
    return [Listed(each.session_id) for each in await client.commands.sessions() if not each.revoked_at]


async def _devices(client: Client) -> list[Listed]:
    sessions = await client.commands.sessions()
    return [Listed(each) for each in sorted({one.device_id for one in sessions if not one.revoked_at})]


def _forget_own(client: Client, ended: Collection[str]) -> None:
    """Forget our credentials if they are of a session that has ended."""
    if client.auth.credentials().session_id in ended:
        client.auth.forget()
