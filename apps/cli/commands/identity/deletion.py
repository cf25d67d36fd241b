"""`oa account delete`: the end of the own account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli, account_group, command
from apps.cli.times import time_words
from oa_client.core.accounts import AccountDeletion, AccountOrg

dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
confirm_option = click.option(
    "--confirm", default=None, metavar="ADDRESS", help="The account's address, instead of typing it. For scripts."
)


@account_group.command("delete", epilog="Example: oa account delete --dry-run")
@dry_run_option
@confirm_option
@command
def delete(cli: Cli, dry_run: bool, confirm: str | None) -> Exit:
    """Delete your account for good, after showing what goes with it and asking for your address.

    Your sessions and personal access tokens end everywhere within moments. Your own org, and orgs in which you are
    alone, are deleted; in others, your runs stay with the org. If others would be left without an owner, make somebody
    else an owner first. The address can then be used for another account, which has nothing of this one.
    """
    return end_account(cli, asyncio.run(_deletion(cli)), confirm, lambda: asyncio.run(_delete(cli)), dry_run=dry_run)


async def _deletion(cli: Cli) -> AccountDeletion:
    async with cli.site_of_person.client() as client:
        return await client.commands.account.deletion()


async def _delete(cli: Cli) -> AccountDeletion:
    async with cli.site_of_person.client() as client:
        ended = await client.commands.account.delete(client.auth.credentials().user_id)
        client.auth.forget()
    return ended


def end_account(
    cli: Cli, found: AccountDeletion, confirm: str | None, delete: Callable[[], AccountDeletion], *, dry_run: bool
) -> Exit:
    """Show what the deletion of an account ends, have it confirmed, and delete the account, unless it is deleted.

    Prompts: call it outside of the event loop, so that Ctrl-C ends it. Raises UsageError for another address.
    """
    if found.deleted_at:
        cli.output.say(f"The account {found.user_id} was deleted at {time_words(found.deleted_at)}.")
    else:
        _show(cli, found)
    if dry_run or found.deleted_at:
        cli.output.document(found.document)
        return Exit.OK
    if not found.blocking:  # otherwise the refusal says what to do
        _require_confirmed(cli, found, confirm)
    ended = delete()
    cli.output.say(f"Deleted the account {ended.user_id}.")
    cli.output.document(ended.document)
    return Exit.OK


def _show(cli: Cli, found: AccountDeletion) -> None:
    counts = f"{_count(found.live_sessions, 'session')}, {_count(found.live_keys, 'personal access token')}"
    cli.output.note(f"The deletion of {found.email} ends {counts}.")
    _show_orgs(cli, "Deleted with it", found.ending)
    _show_orgs(cli, "Left; its runs stay there", found.left)
    _show_orgs(cli, "In the way: no other owner", found.blocking)


def _show_orgs(cli: Cli, what: str, orgs: Sequence[AccountOrg]) -> None:
    for org in orgs:
        cli.output.note(f"{what}: {org.org_id} ({'own org' if org.personal else org.name})")


def _require_confirmed(cli: Cli, found: AccountDeletion, given: str | None) -> None:
    if given is None:
        given = cli.output.ask(f"Type {found.email} to delete the account")
    if given.strip().casefold() != found.email.casefold():
        raise click.UsageError("This is not the account's address. Nothing was deleted.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
