"""`oa member list|invite|role|remove`: who is in an org."""

from __future__ import annotations

import unicodedata

import click

from apps.cli.exits import Exit
from apps.cli.following.ids import Kind, Listed, meant
from apps.cli.program import Cli, command, member_group
from apps.cli.times import time_words
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.core.orgs import ROLES, Member

org_option = click.option(
    "--org", "org_id", metavar="ORG_ID", default="", help="Use this org, not the one that you act in."
)

person_argument = click.argument("person")


_ORG = Kind("org", "org_id", "oa org list", ("org_",))
_ASCII_PREFIX = "xn--"
_PERSON = Kind("member", "person", "oa member list", ("usr_",))


async def meant_org(client: Client, org_id: str) -> str:
    """Return the id of the person's org that was named. Raises Refusal `not_found`, `invalid_value`."""
    return await meant(_ORG, org_id, lambda: _orgs(client))


async def org_of(client: Client, org_id: str) -> str:
    """Return the id of the org that was named, or else of the one that the person acts in. Raises as `meant_org`."""
    return await meant_org(client, org_id) if org_id else client.auth.credentials().org_id


async def _orgs(client: Client) -> list[Listed]:
    return [Listed(each.org_id) for each in await client.commands.orgs.list()]


async def every_member(client: Client, org_id: str) -> list[Member]:
    """All members of an org."""
    members: list[Member] = []
    token = ""
    while True:
        page = await client.commands.orgs.members(org_id, page_size=200, page_token=token)
        members.extend(page.members)
        if not page.next_page_token or page.next_page_token == token:
            return members
        token = page.next_page_token


async def user_id_of(client: Client, org_id: str, person: str) -> str:
    """Return the id of a member given by id or e-mail address. Raises Refusal `not_found`, `invalid_value`."""
    if "@" not in person:
        if not _PERSON.is_id(person):
            message = f"this is neither an e-mail address nor an id (usr_…); look with `{_PERSON.lists}`"
            raise Refusal("invalid_value", message, field="person")
        return person
    typed = unicodedata.normalize("NFC", person.strip().lower())
    found = [each.user_id for each in await every_member(client, org_id) if typed in _spellings(each.email)]
    if not found:
        raise Refusal(
            "not_found", "the org has no member with that address; look with `oa member list`", field="person"
        )
    return found[0]


def _spellings(address: str) -> set[str]:
    """Return an address as control lists it, and with its domain as people write it: control lists that in ASCII."""
    name, _, domain = address.rpartition("@")
    try:
        readable = ".".join(map(_label, domain.split(".")))
    except UnicodeError:
        return {address}
    return {address, f"{name}@{readable}"}


def _label(label: str) -> str:
    return label.removeprefix(_ASCII_PREFIX).encode().decode("punycode") if label.startswith(_ASCII_PREFIX) else label


@member_group.command("list", epilog="Example: oa member list")
@org_option
@command
async def list_members(cli: Cli, org_id: str) -> Exit:
    """List the members of your org."""
    async with cli.site_of_person.client() as client:
        members = await every_member(client, await org_of(client, org_id))
    for each in members:
        cli.output.document(each.document)
    rows = [[each.user_id, each.role, time_words(each.joined_at), each.email] for each in members]
    cli.output.table(["person", "role", "since", "e-mail"], rows)
    return Exit.OK


@member_group.command("invite", epilog="Example: oa member invite bob@example.org --role admin")
@click.argument("email")
@click.option("--role", type=click.Choice(ROLES), default="member", show_default=True, help="Role of the person.")
@org_option
@command
async def invite(cli: Cli, email: str, role: str, org_id: str) -> Exit:
    """Invite somebody to your org by e-mail. Anyone who signs in with that address can accept."""
    async with cli.site_of_person.client() as client:
        invitation = await client.commands.orgs.invite(await org_of(client, org_id), email, role)
    cli.output.say(
        f"Invited {invitation.email} as {invitation.role} ({invitation.invitation_id}), "
        f"until {time_words(invitation.expires_at)}."
    )
    cli.output.document(invitation.document)
    return Exit.OK


@member_group.command("role", epilog="Example: oa member role bob@example.org viewer")
@person_argument
@click.argument("role", type=click.Choice(ROLES))
@org_option
@command
async def set_role(cli: Cli, person: str, role: str, org_id: str) -> Exit:
    """Change the role of a member of your org. PERSON is an e-mail address or an id (usr_…)."""
    async with cli.site_of_person.client() as client:
        org = await org_of(client, org_id)
        member = await client.commands.orgs.set_role(org, await user_id_of(client, org, person), role)
    cli.output.say(f"{member.email} ({member.user_id}) is {member.role}.")
    cli.output.document(member.document)
    return Exit.OK


@member_group.command("remove", epilog="Example: oa member remove bob@example.org")
@person_argument
@org_option
@command
async def remove(cli: Cli, person: str, org_id: str) -> Exit:
    """Remove a member from your org. PERSON is an e-mail address or an id (usr_…).

    Everything that the person has open there ends within moments. Runs go on.
    """
    async with cli.site_of_person.client() as client:
        org = await org_of(client, org_id)
        user_id = await user_id_of(client, org, person)
        await client.commands.orgs.remove(org, user_id)
    cli.output.say(f"Removed {user_id}.")
    cli.output.document({"userId": user_id, "removed": True})
    return Exit.OK
