"""The parts shared by commands that read an audit log: filters, tables, and the report on a log that holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli
from apps.cli.times import MOMENT, time_words
from oa_client.core.audit import OUTCOMES, AuditEvent, AuditPage
from oa_runlog.proof.audit import AuditHead, VerifiedAuditLog, read_audit_head

_PAGE = 200
C = TypeVar("C", bound=Callable[..., object])
Fetch = Callable[[int, str], Awaitable[AuditPage]]
"""Fetches a page, given its number of events and its token."""


class HeadType(click.ParamType[AuditHead]):
    """A head as `verify` prints it."""

    name = "head"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> AuditHead:
        if isinstance(value, AuditHead):
            return value
        try:
            return read_audit_head(str(value))
        except ValueError:
            return self.fail("Give a head as `verify` prints it: a number, a colon, 64 digits.", param, ctx)


def filter_options(body: C) -> C:
    """Add the options that select events."""
    for option in reversed(
        (
            click.option("--actor", default="", metavar="ID", help="Only actions of this person or service account."),
            click.option(
                "--action", default="", metavar="NAME", help="Only this action, for example session.signed_in."
            ),
            click.option(
                "--target", default="", metavar="ID", help="Only actions on this target: an id, or an address."
            ),
            click.option("--outcome", type=click.Choice(OUTCOMES), help="Only actions with this outcome."),
            click.option("--since", type=MOMENT, default=None, metavar="TIME", help="Only events from this time on."),
            click.option("--until", type=MOMENT, default=None, metavar="TIME", help="Only events before this time."),
        )
    ):
        body = option(body)
    return body


limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number of events."
)
head_option = click.option(
    "--head",
    "known",
    type=HeadType(),
    metavar="HEAD",
    help="A head that you kept; the command checks that nothing up to it has changed.",
)


async def newest(fetch: Fetch, limit: int) -> list[AuditEvent]:
    """Return the newest events that pass, at most `limit`."""
    events, token = list[AuditEvent](), ""
    while True:
        page = await fetch(min(_PAGE, limit - len(events)), token)
        events += page.events
        token = page.next_page_token
        if not token or len(events) >= limit:
            return events[:limit]


def show(cli: Cli, events: list[AuditEvent]) -> None:
    """Show a table of events."""
    for each in events:
        cli.output.document(each.document)
    if not events:
        cli.output.note("No event.")
        return
    rows = [
        [
            time_words(each.time),
            each.action,
            f"{each.outcome} {each.reason}".strip(),
            each.actor,
            each.target,
            each.network,
        ]
        for each in events
    ]
    cli.output.table(["time", "action", "outcome", "actor", "target", "network"], rows, elastic="target")


def compared(cli: Cli, verified: VerifiedAuditLog, known: AuditHead | None) -> Exit:
    """Say that the log holds, and whether the head that was given could be compared."""
    say(cli, verified)
    if known is not None and not verified.known_compared:
        cli.output.note(f"Your head is from before event {verified.start.sequence}, the last that was dropped.")
        return Exit.NOT_PROVED
    return Exit.OK


def say(cli: Cli, verified: VerifiedAuditLog, where: str = "") -> None:
    """Say that the log holds, and what its head is."""
    since = f", from {verified.first_time}" if verified.count else ""
    whose = verified.org_id or "no org"
    cli.output.say(f"{where}{verified.count} events of {whose}{since}: the chain holds.", "green")
    if verified.start.sequence:
        cli.output.say(f"{verified.start.sequence} older ones are no longer kept.", "dim")
    cli.output.say(f"Keep the head: {verified.head}")
    document = {
        "verified": True,
        "orgId": verified.org_id,
        "eventsChecked": verified.count,
        "firstSequence": verified.start.sequence + 1,
        "firstTime": verified.first_time,
        "head": str(verified.head),
        "headCompared": verified.known_compared,
    }
    cli.output.document(document)
