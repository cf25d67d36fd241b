"""`oa audit list|export|verify`: who did what in the org, and that nobody changed it since."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli, audit_group, command
from apps.cli.times import MOMENT
from oa_client.client import Client
from oa_client.core.audit import OUTCOMES, AuditEvent, AuditFilters
from oa_client.cpython.artifact_files import scratch, staging
from oa_client.proofs.audit_log import checked_audit_log, verify_audit_file
from oa_runlog.proof.audit import AuditHead, VerifiedAuditLog, read_audit_head

_PAGE = 200
_VERIFY_EXAMPLES = """\
Example: oa audit verify

Example: oa audit verify audit.jsonl
"""


class _HeadType(click.ParamType[AuditHead]):
    """A head as `oa audit verify` prints it."""

    name = "head"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> AuditHead:
        if isinstance(value, AuditHead):
            return value
        try:
            return read_audit_head(str(value))
        except ValueError:
            return self.fail("Give a head as `oa audit verify` prints it: a number, a colon, 64 digits.", param, ctx)


@audit_group.command("list", epilog="Example: oa audit list --outcome refused --since 2026-12-01")
@click.option("--actor", default="", metavar="ID", help="Only what this person or service account did.")
@click.option("--action", default="", metavar="NAME", help="Only this, for example session.signed_in.")
@click.option("--target", default="", metavar="ID", help="Only what was done on this.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only what ended so.")
@click.option("--since", type=MOMENT, default=None, metavar="TIME", help="Only from this time on.")
@click.option("--until", type=MOMENT, default=None, metavar="TIME", help="Only before this time.")
@click.option("--mine", is_flag=True, help="What you did, and what was done to your account, in every org.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number.")
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
    """List what was recorded in your org, the newest first. Its owners and admins may; --mine is for everybody."""
    filters = AuditFilters(actor, action, target, outcome or "", since, until)
    if mine and filters != AuditFilters():
        raise click.UsageError("--mine takes no filters")
    async with cli.site.client() as client:
        events = await _events(client, None if mine else filters, limit)
    for each in events:
        cli.output.document(each.document)
    rows = [
        [
            each.time[:19],
            each.action,
            f"{each.outcome} {each.reason}".strip(),
            each.actor,
            each.target,
            each.network,
        ]
        for each in events
    ]
    cli.output.table(["time", "action", "outcome", "actor", "target", "network"], rows, elastic="target")
    return Exit.OK


async def _events(client: Client, filters: AuditFilters | None, limit: int) -> list[AuditEvent]:
    """The newest events that pass; one's own for no filters."""
    audit, events, token = client.commands.audit, list[AuditEvent](), ""
    while True:
        size = min(_PAGE, limit - len(events))
        page = await (
            audit.own_page(page_size=size, page_token=token)
            if filters is None
            else audit.page(filters, page_size=size, page_token=token)
        )
        events += page.events
        token = page.next_page_token
        if not token or len(events) >= limit:
            return events[:limit]


@audit_group.command("export", epilog="Example: oa audit export audit.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command
async def export(cli: Cli, file: Path) -> Exit:
    """Write the audit log of your org into FILE, checked: a line of JSON for each event, the oldest first."""
    async with cli.site.client() as client:
        with staging(file.parent) as (path, opened):
            verified = await checked_audit_log(client.commands.audit, cli.site.audit_heads, opened)
            opened.close()
            path.replace(file)
    _say(cli, verified, f"{file}: ")
    return Exit.OK


@audit_group.command("verify", epilog=_VERIFY_EXAMPLES)
@click.option(
    "--head", "known", type=_HeadType(), metavar="HEAD", help="A head that you kept: nothing up to it changed."
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@command
async def verify(cli: Cli, file: Path | None, known: AuditHead | None) -> Exit:
    """Check the audit log of your org, or offline the one in FILE: order, chain, and that it continues a head.

    The newest head of the site is kept here, and the next log is held against it.
    """
    if file is not None:
        with file.open("rb") as opened:
            verified = verify_audit_file(opened, known)
    else:
        async with cli.site.client() as client:
            with scratch() as opened:
                verified = await checked_audit_log(client.commands.audit, cli.site.audit_heads, opened, known)
    _say(cli, verified)
    if known is not None and not verified.known_compared:
        cli.output.note(f"Your head is from before event {verified.start.sequence}, the last that was dropped.")
        return Exit.NOT_PROVED
    return Exit.OK


def _say(cli: Cli, verified: VerifiedAuditLog, where: str = "") -> None:
    since = f", from {verified.first_time}" if verified.count else ""
    cli.output.say(f"{where}{verified.count} events of {verified.org_id}{since}: the chain holds.", "green")
    if verified.start.sequence:
        cli.output.say(f"{verified.start.sequence} older ones are no longer kept.", "dim")
    cli.output.say(f"Keep the head: {verified.head}")
    document = {
        "verified": True,
        "org_id": verified.org_id,
        "events_checked": verified.count,
        "first_sequence": verified.start.sequence + 1,
        "first_time": verified.first_time,
        "head": str(verified.head),
        "head_compared": verified.known_compared,
    }
    cli.output.document(document)
