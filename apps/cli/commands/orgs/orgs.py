"""`oa org list|create|rename|switch|leave|transfer|delete|restore`: the orgs that a person works in."""

from __future__ import annotations

import click

from apps.cli.commands.orgs.members import meant_org, person_argument, user_id_of
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, org_group
from apps.cli.times import time_words
from oa_client.core.orgs import Org

org_argument = click.argument("org_id")


@org_group.command("list", epilog="Example: oa org list")
@command
async def list_orgs(cli: Cli) -> Exit:
    """List your orgs, your own first. An asterisk marks the one that your commands act in."""
    async with cli.site_of_person.client() as client:
        orgs = await client.commands.orgs.list()
        active = client.auth.credentials().org_id
    for one in orgs:
        cli.output.document(one.document | {"active": one.org_id == active})
    rows = [[one.org_id, "*" if one.org_id == active else "", one.role, _state(one), one.name] for one in orgs]
    cli.output.table(["org", "", "role", "state", "name"], rows, elastic="name")
    return Exit.OK


@org_group.command("create", epilog="Example: oa org create 'Search team'")
@click.argument("name")
@click.option("--switch", is_flag=True, help="Act in it from now on.")
@command
async def create(cli: Cli, name: str, switch: bool) -> Exit:
    """Create an org called NAME, with you as its owner."""
    async with cli.site_of_person.client() as client:
        made = await client.commands.orgs.create(name)
        if switch:
            await client.auth.switch_org(made.org_id)
    cli.output.say(f"Made {made.org_id} ({made.name}).")
    cli.output.document(made.document)
    if not switch:
        cli.output.note(f"Act in it: oa org switch {made.org_id}")
    return Exit.OK


@org_group.command("rename", epilog="Example: oa org rename org_01JD8V0000000000000000000A 'Search'")
@org_argument
@click.argument("name")
@command
async def rename(cli: Cli, org_id: str, name: str) -> Exit:
    """Rename an org to NAME."""
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        renamed = await client.commands.orgs.rename(org_id, name)
    cli.output.say(f"{renamed.org_id} is called {renamed.name}.")
    cli.output.document(renamed.document)
    return Exit.OK


@org_group.command("switch", epilog="Example: oa org switch org_01JD8V0000000000000000000A")
@org_argument
@command
async def switch(cli: Cli, org_id: str) -> Exit:
    """Make your commands on this device act in another of your orgs from now on."""
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        await client.auth.switch_org(org_id)
    cli.output.say(f"You act in {org_id} now.")
    cli.output.document({"orgId": org_id, "active": True})
    return Exit.OK


@org_group.command("leave", epilog="Example: oa org leave org_01JD8V0000000000000000000A")
@org_argument
@command
async def leave(cli: Cli, org_id: str) -> Exit:
    """Leave an org. Everything that you have open there ends within moments. Your runs go on."""
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        await client.commands.orgs.leave(org_id)
        await client.auth.catch_up(org_id)
    cli.output.say(f"You left {org_id}.")
    cli.output.document({"orgId": org_id, "left": True})
    return Exit.OK


@org_group.command("transfer", epilog="Example: oa org transfer org_01JD8V… bob@example.org")
@org_argument
@person_argument
@command
async def transfer(cli: Cli, org_id: str, person: str) -> Exit:
    """Make a member the owner of an org. You become an admin. PERSON is an e-mail address or an id (usr_…)."""
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        owner = await client.commands.orgs.transfer(org_id, await user_id_of(client, org_id, person))
    cli.output.say(f"{owner.email} ({owner.user_id}) is the owner of {org_id}.")
    cli.output.document(owner.document)
    return Exit.OK


@org_group.command("delete", epilog="Example: oa org delete org_01JD8V0000000000000000000A")
@org_argument
@command
async def delete(cli: Cli, org_id: str) -> Exit:
    """Delete an org: close it for everybody, and cancel its runs. An owner can restore it for a while; then it is gone.

    Its schedules stop, and resume when it is restored. Canceled runs stay canceled.
    """
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        closed = await client.commands.orgs.delete(org_id)
        await client.auth.catch_up(org_id)
    cli.output.say(
        f"Deleted {closed.org_id} ({closed.name}). Until {time_words(closed.deletes_at)}: oa org restore {org_id}"
    )
    cli.output.document(closed.document)
    return Exit.OK


@org_group.command("restore", epilog="Example: oa org restore org_01JD8V0000000000000000000A")
@org_argument
@command
async def restore(cli: Cli, org_id: str) -> Exit:
    """Restore a deleted org."""
    async with cli.site_of_person.client() as client:
        org_id = await meant_org(client, org_id)
        opened = await client.commands.orgs.restore(org_id)
    cli.output.say(f"{opened.org_id} ({opened.name}) is open again.")
    cli.output.document(opened.document)
    return Exit.OK


def _state(org: Org) -> str:
    if org.deletes_at:
        return f"gone at {time_words(org.deletes_at)}"
    return "own" if org.personal else ""
