"""`oa admin user …`: who is let in."""

from __future__ import annotations

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, user_group
from apps.cli.times import time_words
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


def _show(cli: Cli, subject: Subject) -> None:
    cli.output.document(subject.document)
    blocked = time_words(subject.blocked_at) or "no"
    row = [subject.subject, blocked, str(subject.live_sessions), str(subject.live_keys), subject.org_id, subject.name]
    cli.output.table(["id", "blocked", "sessions", "keys", "org", "name"], [row])
