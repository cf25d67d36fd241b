"""`oa key create|list|revoke`: service accounts, each with its API key."""

from __future__ import annotations

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli, command, key_group


@key_group.command("create", epilog="Example: oa key create ci > ci.key")
@click.argument("name")
@command
async def create(cli: Cli, name: str) -> Exit:
    """Make a service account called NAME, and print its API key, which is shown this once.

    Only the key goes to stdout: export OA_API_KEY="$(oa key create ci)"
    """
    async with cli.site.client() as client:
        account = await client.commands.create_service_account(name)
    cli.output.note(f"Made {account.service_account_id} ({account.name}). Its key is shown only now:")
    cli.output.say(account.api_key)
    cli.output.document(account.document)
    return Exit.OK


@key_group.command("list", epilog="Example: oa key list --all")
@click.option("--all", "revoked", is_flag=True, help="Also those that were revoked.")
@command
async def list_keys(cli: Cli, revoked: bool) -> Exit:
    """List your org's service accounts, the newest first. Each has one key, which nobody can see again."""
    async with cli.site.client() as client:
        accounts = [each for each in await client.commands.service_accounts() if revoked or not each.revoked_at]
    for each in accounts:
        cli.output.document(each.document)
    if accounts:
        rows = [[each.service_account_id, each.created_at[:19], each.revoked_at[:19], each.name] for each in accounts]
        cli.output.table(["service account", "created", "revoked", "name"], rows)
    else:
        cli.output.note("No service account. Make one: oa key create NAME")
    return Exit.OK


@key_group.command("revoke", epilog="Example: oa key revoke sva_01JD8V0000000000000000000A")
@click.argument("service_account_id")
@command
async def revoke(cli: Cli, service_account_id: str) -> Exit:
    """End a service account and its key, and the tokens that were made with it."""
    async with cli.site.client() as client:
        await client.commands.revoke_service_account(service_account_id)
    cli.output.say(f"Revoked {service_account_id}.")
    cli.output.document({"service_account_id": service_account_id, "revoked": True})
    return Exit.OK
