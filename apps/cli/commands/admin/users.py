"""`oa admin user …`: who is let in."""

from __future__ import annotations

import asyncio

import click

from apps.cli.admin.operator import operators
from apps.cli.commands.identity.deletion import confirm_option, dry_run_option, end_account
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, user_group
from apps.cli.times import time_words
from oa_client.core.accounts import AccountDeletion
from oa_client.cpython.operators.subjects import Subject, SubjectOperators


@user_group.command("show", epilog="Example: oa admin user show ada@example.org")
@click.argument("who")
@command
async def show_user(cli: Cli, who: str) -> Exit:
    """Show a person or service account by id, or a person by address."""
    async with operators(SubjectOperators, cli.env) as operator:
        _show(cli, await operator.show(who))
    return Exit.OK


@user_group.command("block", epilog="Example: oa admin user block ada@example.org")
@click.argument("who")
@command
async def block_user(cli: Cli, who: str) -> Exit:
    """Block a person or service account, and end everything that they have open.

    A person's sessions and personal access tokens end for good; a service account's keys are refused until it is
    unblocked. Runs go on; cancel them if they should not. Schedules pause until somebody resumes them after that.
    """
    async with operators(SubjectOperators, cli.env) as operator:
        _show(cli, await operator.block(who))
    return Exit.OK


@user_group.command("unblock", epilog="Example: oa admin user unblock ada@example.org")
@click.argument("who")
@command
async def unblock_user(cli: Cli, who: str) -> Exit:
    """Remove the block. A person has to sign in again; a service account's keys work again."""
    async with operators(SubjectOperators, cli.env) as operator:
        _show(cli, await operator.unblock(who))
    return Exit.OK


@user_group.command("delete", epilog="Example: oa admin user delete ada@example.org")
@click.argument("who")
@dry_run_option
@confirm_option
@command
def delete_user(cli: Cli, who: str, dry_run: bool, confirm: str | None) -> Exit:
    """Delete a person's account for good, by id or address, after showing what goes with it and asking for the address.

    The address can then sign up again. To keep somebody out, block them instead.
    """
    found = asyncio.run(_deletion(cli, who))
    return end_account(cli, found, confirm, lambda: asyncio.run(_delete(cli, found.user_id)), dry_run=dry_run)


async def _deletion(cli: Cli, who: str) -> AccountDeletion:
    async with operators(SubjectOperators, cli.env) as operator:
        return await operator.deletion(who)


async def _delete(cli: Cli, user_id: str) -> AccountDeletion:
    async with operators(SubjectOperators, cli.env) as operator:
        return await operator.delete(user_id)


def _show(cli: Cli, subject: Subject) -> None:
    cli.output.document(subject.document)
    deleted = f"deleted {time_words(subject.deleted_at)}" if subject.deleted_at else ""
    state = deleted or time_words(subject.blocked_at) or "no"
    row = [subject.subject, state, str(subject.live_sessions), str(subject.live_keys), subject.org_id, subject.name]
    cli.output.table(["id", "blocked", "sessions", "keys", "org", "name"], [row])
