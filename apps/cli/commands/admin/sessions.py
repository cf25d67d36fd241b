"""`oa admin session …`: where people are signed in."""

from __future__ import annotations

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, admin_session_group, command
from apps.cli.times import time_words
from oa_client.cpython.operators.sessions import SessionOperators


@admin_session_group.command("list", epilog="Example: oa admin session list ada@example.org")
@click.argument("person")
@click.option("--all", "revoked", is_flag=True, help="Include those that were revoked in the last 30 days.")
@command
async def list_sessions(cli: Cli, person: str, revoked: bool) -> Exit:
    """List the sessions of PERSON (usr_… or an address), newest first."""
    async with operators(SessionOperators, cli.env) as operator:
        found = await operator.list(person)
    sessions = [each for each in found if revoked or not each.revoked_at]
    for each in sessions:
        cli.output.document(each.document)
    if not sessions:
        cli.output.note("No session." if revoked else "No session. Those that were revoked: --all")
        return Exit.OK
    rows = [
        [
            each.session_id,
            each.device_id,
            time_words(each.created_at),
            time_words(each.refreshed_at),
            each.revoke_reason,
        ]
        for each in sessions
    ]
    cli.output.table(["session", "device", "created", "refreshed", "revoked"], rows)
    return Exit.OK


@admin_session_group.command("revoke", epilog="Example: oa admin session revoke ada@example.org --all")
@click.argument("person")
@click.argument("session_id", required=False)
@click.option("--all", "everywhere", is_flag=True, help="End all sessions of the person.")
@command
async def revoke(cli: Cli, person: str, session_id: str | None, everywhere: bool) -> Exit:
    """End one session of PERSON (usr_… or an address), or all. Everything that they have open ends within moments,
    everywhere.

    The person can sign in again; oa admin user block prevents that. Personal access tokens and runs go on.
    """
    if bool(session_id) == everywhere:
        raise click.UsageError("name one session, or give --all")
    async with operators(SessionOperators, cli.env) as operator:
        ended = await operator.revoke(person, session_id or "")
    cli.output.say(f"Revoked {len(ended)} session{'' if len(ended) == 1 else 's'}.")
    for each in ended:
        cli.output.document({"sessionId": each, "revoked": True})
    return Exit.OK
