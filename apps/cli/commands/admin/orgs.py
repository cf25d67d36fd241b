"""`oa admin org …`: all orgs of the installation, whoever their members are."""

from __future__ import annotations

from collections.abc import Sequence

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, admin_org_group, command
from apps.cli.times import time_words
from oa_client.cpython.operators.orgs import InstallationOrg, OrgOperators

_org = click.argument("org_id")


@admin_org_group.command("list", epilog="Example: oa admin org list --deleted")
@click.option(
    "--person", default="", metavar="WHO", help="Only orgs of a person (usr_… or an address), with the own org."
)
@click.option("--deleted", is_flag=True, help="Only deleted orgs that can be restored.")
@command
async def list_orgs(cli: Cli, person: str, deleted: bool) -> Exit:
    """List the orgs of the installation, oldest first, without people's own orgs and those that are gone."""
    async with operators(OrgOperators, cli.env) as operator:
        orgs = [one async for one in operator.list(person, deleted=deleted)]
    for one in orgs:
        cli.output.document(one.document)
    if orgs:
        _table(cli, orgs)
    else:
        cli.output.note("No org.")
    return Exit.OK


@admin_org_group.command("show", epilog="Example: oa admin org show org_01JD8V0000000000000000000A")
@_org
@command
async def show_org(cli: Cli, org_id: str) -> Exit:
    """Show an org, whether it was deleted, and its members."""
    async with operators(OrgOperators, cli.env) as operator:
        found, members, document = await operator.show(org_id)
    cli.output.document(document)
    _table(cli, [found])
    cli.output.table(
        ["member", "role", "since", "address"],
        [[each.user_id, each.role, time_words(each.joined_at), each.email] for each in members],
    )
    return Exit.OK


@admin_org_group.command("restore", epilog="Example: oa admin org restore org_01JD8V0000000000000000000A")
@_org
@command
async def restore_org(cli: Cli, org_id: str) -> Exit:
    """Restore an org that was deleted and is not gone. Its members have the roles that they had.

    Its schedules resume by themselves. People have to switch to it again, and workers have to be started again.
    """
    async with operators(OrgOperators, cli.env) as operator:
        opened = await operator.restore(org_id)
    cli.output.document(opened.document)
    cli.output.say(f"{opened.org_id} ({opened.name}) is open.")
    return Exit.OK


@admin_org_group.command("set-owner", epilog="Example: oa admin org set-owner org_01JD8V0000000000000000000A bob@x.org")
@_org
@click.argument("person")
@command
async def set_owner(cli: Cli, org_id: str, person: str) -> Exit:
    """Make a member (usr_… or an address) the owner of an org whose owners are all blocked.

    Refused while the org has an owner who can act. Blocked owners stay owners, for when their block is removed.
    """
    async with operators(OrgOperators, cli.env) as operator:
        owner, document = await operator.set_owner(org_id, person)
    cli.output.document(document)
    cli.output.say(f"{owner.email} ({owner.user_id}) is an owner of {org_id}.")
    return Exit.OK


def _table(cli: Cli, orgs: Sequence[InstallationOrg]) -> None:
    rows = [
        [one.org_id, _state(one), str(one.members), str(one.service_accounts), time_words(one.created_at), one.name]
        for one in orgs
    ]
    cli.output.table(["org", "state", "members", "accounts", "created", "name"], rows, elastic="name")


def _state(one: InstallationOrg) -> str:
    if one.gone_at:
        return f"gone since {time_words(one.gone_at)}"
    if one.deletes_at:
        return f"deleted, gone at {time_words(one.deletes_at)}"
    return "own" if one.personal else "open"
