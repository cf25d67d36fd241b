"""`oa audit list|export|verify`: who did what in the org, and the proof that nobody changed it since."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from apps.cli.commands.audits import compared, filter_options, head_option, limit_option, newest, say, show
from apps.cli.exits import Exit
from apps.cli.program import Cli, audit_group, command
from oa_client.core.audit import AuditFilters, AuditPage
from oa_client.cpython.artifact_files import replacing, scratch
from oa_client.proofs.audit_log import checked_audit_log, verify_audit_file
from oa_runlog.proof.audit import AuditHead

_VERIFY_EXAMPLES = """\
Example: oa audit verify

Example: oa audit verify audit.jsonl
"""


@audit_group.command("list", epilog="Example: oa audit list --outcome refused --since 2026-12-01")
@filter_options
@click.option("--mine", is_flag=True, help="Your actions and those on your account, in every org.")
@limit_option
@command
async def list_events(
    cli: Cli,
    actor: str,
    action: str,
    target: str,
    outcome: str | None,
    since: datetime | None,
    until: datetime | None,
    mine: bool,
    limit: int,
) -> Exit:
    """List the audit events of your org, newest first. Only its owners and admins may; --mine is for everybody."""
    filters = AuditFilters(actor, action, target, outcome or "", since, until)
    if mine and filters != AuditFilters():
        raise click.UsageError("--mine takes no filters")
    async with cli.site.client() as client:
        audit = client.commands.audit

        async def fetch(size: int, token: str) -> AuditPage:
            if mine:
                return await audit.own_page(page_size=size, page_token=token)
            return await audit.page(filters, page_size=size, page_token=token)

        events = await newest(fetch, limit)
    show(cli, events)
    return Exit.OK


@audit_group.command("export", epilog="Example: oa audit export audit.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command
async def export(cli: Cli, file: Path) -> Exit:
    """Check the audit log of your org and write it to FILE, one line of JSON per event, oldest first."""
    async with cli.site.client() as client:
        with replacing(file) as opened:
            verified = await checked_audit_log(client.commands.audit, cli.site.audit_heads, opened)
    say(cli, verified, f"{file}: ")
    return Exit.OK


@audit_group.command("verify", epilog=_VERIFY_EXAMPLES)
@head_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@command
async def verify(cli: Cli, file: Path | None, known: AuditHead | None) -> Exit:
    """Check the audit log of your org, or offline the one in FILE: its order, its chain, and that it continues a head.

    The newest head of the site is kept on this machine, and the next log is compared with it.
    """
    if file is not None:
        with file.open("rb") as opened:
            verified = verify_audit_file(opened, known)
    else:
        async with cli.site.client() as client:
            with scratch() as opened:
                verified = await checked_audit_log(client.commands.audit, cli.site.audit_heads, opened, known)
    return compared(cli, verified, known)
