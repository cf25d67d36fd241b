"""`oa invitation list|accept|decline|resend|revoke`: who may join an org."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import click

from apps.cli.commands.orgs.members import org_of, org_option
from apps.cli.exits import Exit
from apps.cli.following.ids import Kind, Listed, meant
from apps.cli.program import Cli, command, invitation_group
from apps.cli.times import time_words
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.core.orgs import Invitation

_INVITATION = Kind("invitation", "invitation_id", "oa invitation list", ("inv_",))
_SENT = Kind("invitation", "invitation_id", "oa invitation list --sent", ("inv_",))

invitation_argument = click.argument("invitation_id")


@invitation_group.command("list", epilog="Example: oa invitation list --sent")
@click.option("--sent", is_flag=True, help="List those that your org has sent, not those that you received.")
@org_option
@command
async def list_invitations(cli: Cli, sent: bool, org_id: str) -> Exit:
    """List the open invitations that you received, newest first."""
    if org_id and not sent:
        raise click.UsageError("--org is for those that an org has sent; give --sent, too")
    async with cli.site_of_person.client() as client:
        orgs = client.commands.orgs
        found = await orgs.invitations(await org_of(client, org_id)) if sent else await orgs.own_invitations()
    for each in found:
        cli.output.document(each.document)
    if found:
        rows = [_row(each, sent=sent) for each in found]
        cli.output.table(["invitation", "role", "expires", "for" if sent else "from", "org", "name"], rows)
    else:
        cli.output.note("No open invitation.")
    return Exit.OK


@invitation_group.command("accept", epilog="Example: oa invitation accept --switch")
@click.argument("invitation_id", default="")
@click.option("--switch", is_flag=True, help="Act in the org from now on.")
@command
async def accept(cli: Cli, invitation_id: str, switch: bool) -> Exit:
    """Become a member of the org that you are invited to. No id is needed if you have exactly one open invitation."""
    async with cli.site_of_person.client() as client:
        invitation = await _got(client, invitation_id) if invitation_id else await _only_one(client)
        joined = await client.commands.orgs.accept(invitation)
        if switch:
            await client.auth.switch_org(joined.org_id)
    cli.output.say(f"You are {joined.role} in {joined.org_id}.")
    cli.output.document(joined.document)
    if not switch:
        cli.output.note(f"Act in it: oa org switch {joined.org_id}")
    return Exit.OK


@invitation_group.command("decline", epilog="Example: oa invitation decline inv_01JD8V0000000000000000000A")
@invitation_argument
@command
async def decline(cli: Cli, invitation_id: str) -> Exit:
    """Decline an invitation."""
    async with cli.site_of_person.client() as client:
        invitation_id = await _got(client, invitation_id)
        await client.commands.orgs.decline(invitation_id)
    cli.output.say(f"Declined {invitation_id}.")
    cli.output.document({"invitationId": invitation_id, "declined": True})
    return Exit.OK


@invitation_group.command("resend", epilog="Example: oa invitation resend inv_01JD8V0000000000000000000A")
@invitation_argument
@org_option
@command
async def resend(cli: Cli, invitation_id: str, org_id: str) -> Exit:
    """Send the mail of an invitation to your org again."""
    async with cli.site_of_person.client() as client:
        org = await org_of(client, org_id)
        invitation = await client.commands.orgs.resend(org, await _sent(client, org, invitation_id))
    cli.output.say(f"Sent the mail to {invitation.email} again. Open until {time_words(invitation.expires_at)}.")
    cli.output.document(invitation.document)
    return Exit.OK


@invitation_group.command("revoke", epilog="Example: oa invitation revoke inv_01JD8V0000000000000000000A")
@invitation_argument
@org_option
@command
async def revoke(cli: Cli, invitation_id: str, org_id: str) -> Exit:
    """Revoke an invitation to your org."""
    async with cli.site_of_person.client() as client:
        org = await org_of(client, org_id)
        invitation_id = await _sent(client, org, invitation_id)
        await client.commands.orgs.revoke(org, invitation_id)
    cli.output.say(f"Revoked {invitation_id}.")
    cli.output.document({"invitationId": invitation_id, "revoked": True})
    return Exit.OK


async def _got(client: Client, invitation_id: str) -> str:
    """Return the id of the one of the person's own open invitations that is meant. Raises Refusal."""
    return await meant(_INVITATION, invitation_id, lambda: _listed(client.commands.orgs.own_invitations()))


async def _sent(client: Client, org_id: str, invitation_id: str) -> str:
    """Return the id of the one of an org's open invitations that is meant. Raises Refusal."""
    return await meant(_SENT, invitation_id, lambda: _listed(client.commands.orgs.invitations(org_id)))


async def _listed(asked: Awaitable[Sequence[Invitation]]) -> list[Listed]:
    return [Listed(each.invitation_id) for each in await asked]


async def _only_one(client: Client) -> str:
    """Return the id of the only open invitation. Raises Refusal `not_found` for none, `missing_field` for several."""
    found = await client.commands.orgs.own_invitations()
    if not found:
        raise Refusal("not_found", "you have no open invitation; ask for one to the address that you signed in with")
    if len(found) > 1:
        message = "you have several open invitations; name one, as `oa invitation list` shows them"
        raise Refusal("missing_field", message, field="invitation_id")
    return found[0].invitation_id


def _row(invitation: Invitation, *, sent: bool) -> list[str]:
    other = invitation.email if sent else invitation.inviter
    return [
        invitation.invitation_id,
        invitation.role,
        time_words(invitation.expires_at),
        other,
        invitation.org_id,
        invitation.org_name,
    ]
