"""`oa admin audit list|export|verify`: the audit events of no org, and of any org, for operators."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

import click

from apps.cli.admin.operator import operators, operators_audit_heads
from apps.cli.commands.audits import compared, filter_options, head_option, limit_option, newest, say, show
from apps.cli.exits import Exit
from apps.cli.program import Cli, admin_audit_group, command
from oa_client.core.audit import AuditFilters, AuditPage
from oa_client.cpython.artifact_files import replacing, scratch
from oa_client.cpython.operators.audit import AuditOperators
from oa_client.proofs.audit_log import checked_audit_log
from oa_runlog.proof.audit import AuditHead

_org = click.option("--org", "org_id", default="", metavar="ORG_ID", help="Use the log of this org instead.")


@admin_audit_group.command("list", epilog="Example: oa admin audit list --action subject.blocked")
@_org
@filter_options
@limit_option
@command
async def list_events(
    cli: Cli,
    org_id: str,
    actor: str,
    action: str,
    target: str,
    outcome: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Exit:
    """List the audit events that belong to no org, newest first."""
    filters = AuditFilters(actor, action, target, outcome or "", since, until)
    async with operators(partial(AuditOperators, org_id=org_id), cli.env) as log:

        async def fetch(size: int, token: str) -> AuditPage:
            return await log.page(filters, page_size=size, page_token=token)

        events = await newest(fetch, limit)
    show(cli, events)
    return Exit.OK


@admin_audit_group.command("export", epilog="Example: oa admin audit export audit.jsonl")
@_org
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command
async def export(cli: Cli, org_id: str, file: Path) -> Exit:
    """Check the log of events that belong to no org and write it to FILE, one line of JSON per event, oldest first.

    `oa audit verify FILE` checks it offline.
    """
    async with operators(partial(AuditOperators, org_id=org_id), cli.env) as log:
        with replacing(file) as opened:
            verified = await checked_audit_log(log, operators_audit_heads(cli.env), opened)
    say(cli, verified, f"{file}: ")
    return Exit.OK


@admin_audit_group.command("verify", epilog="Example: oa admin audit verify")
@_org
@head_option
@command
async def verify(cli: Cli, org_id: str, known: AuditHead | None) -> Exit:
    """Check the log of events that belong to no org: its order, its chain, and that it continues a head.

    The newest head is kept on this machine, and the next log is compared with it.
    """
    async with operators(partial(AuditOperators, org_id=org_id), cli.env) as log:
        with scratch() as opened:
            verified = await checked_audit_log(log, operators_audit_heads(cli.env), opened, known)
    return compared(cli, verified, known)
