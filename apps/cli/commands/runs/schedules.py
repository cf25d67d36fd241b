"""`oa schedule create|list|show|pause|resume|trigger|backfill|delete`: runs that start by the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import click

from apps.cli.commands.runs.run_options import scheduled_run_options, with_terminal
from apps.cli.exits import Exit
from apps.cli.following.ids import Kind, Listed, meant
from apps.cli.output import Output
from apps.cli.program import Cli, command, schedule_group
from apps.cli.site_clock import now_at_site
from apps.cli.times import DURATION, MOMENT, MOMENT_OR_DELAY, time_words
from oa_client.client import Client
from oa_client.core.schedules import (
    OVERLAPS,
    Cron,
    Every,
    Schedule,
    ScheduleDetails,
    ScheduledTime,
    duration_words,
    milliseconds,
)
from oa_runlog.events import RunSpec, Terminal

_CREATE_EXAMPLES = """\
Example: oa schedule create nightly --every 1d -- make test

Example: oa schedule create tick --cron '0 9 * * 1-5' -- ./report
"""


_SCHEDULE = Kind("schedule", "schedule", "oa schedule list", ("sch_",))
_PAGE = 200

schedule_argument = click.argument("schedule")


@schedule_group.command("create", epilog=_CREATE_EXAMPLES)
@click.option("--cron", "expression", default="", help="Cron: minute, hour, day of month, month, day of week.")
@click.option("--time-zone", default=None, show_default="UTC", metavar="ZONE", help="IANA time zone of --cron.")
@click.option("--every", type=DURATION, default=None, metavar="15m", help="Interval between times, instead of --cron.")
@click.option(
    "--anchor", type=MOMENT_OR_DELAY, default=None, metavar="TIME|+DURATION", help="One of the times of --every."
)
@click.option(
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="skip",
    show_default=True,
    help="What to do while the last run has not ended.",
)
@click.option("--catch-up", type=DURATION, default=None, metavar="1h", help="How late a run may start.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal of 80 by 24.")
@click.argument("name")
@scheduled_run_options
@command
async def create(
    cli: Cli,
    name: str,
    spec: RunSpec,
    expression: str,
    time_zone: str | None,
    every: timedelta | None,
    anchor: datetime | timedelta | None,
    overlap: str,
    catch_up: timedelta | None,
    tty: bool,
) -> Exit:
    """Create a schedule, which starts runs of a command or an agent by the clock until it is paused or deleted."""
    timing = _timing(expression, time_zone, every, has_anchor=anchor is not None)
    spec = replace(with_terminal(spec, Terminal()) if tty else spec, title=spec.title or name)
    catch_up_ms = milliseconds(catch_up) if catch_up is not None else 0
    async with cli.site.client() as client:
        if isinstance(anchor, timedelta):
            anchor = await now_at_site(client) + anchor
        if isinstance(timing, Every):
            timing = replace(timing, anchor=anchor)
        made = await client.commands.schedules.create(name, timing, spec, overlap=overlap, catch_up_ms=catch_up_ms)
    cli.output.document(made.document)
    cli.output.say(f"{made.name} starts its first run at {time_words(made.next_at)}.")
    return Exit.OK


@schedule_group.command("list", epilog="Example: oa schedule list")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="Maximum number of schedules."
)
@command
async def list_schedules(cli: Cli, limit: int) -> Exit:
    """List the schedules of your org, newest first."""
    async with cli.site.client() as client:
        page = await client.commands.schedules.page(page_size=limit)
    for one in page.schedules:
        cli.output.document(one.document)
    if page.schedules:
        headers = ["schedule", "status", "times", "next", "started", "skipped", "refused"]
        cli.output.table(headers, [_row(one) for one in page.schedules])
    else:
        cli.output.note("No schedules yet. Create one: oa schedule create nightly --every 1d -- make test")
    return Exit.OK


@schedule_group.command("show", epilog="Example: oa schedule show nightly")
@schedule_argument
@command
async def show(cli: Cli, schedule: str) -> Exit:
    """Show a schedule, its next times, and what became of the last ones."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        found = await client.commands.schedules.get(schedule)
    cli.output.document(found.document)
    _show(cli.output, found)
    return Exit.OK


@schedule_group.command("pause", epilog="Example: oa schedule pause nightly --reason holidays")
@click.option("--reason", default="", help="Why, in your words.")
@schedule_argument
@command
async def pause(cli: Cli, schedule: str, reason: str) -> Exit:
    """Pause a schedule: it starts no more runs until it is resumed."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        paused = await client.commands.schedules.pause(schedule, reason)
    cli.output.document(paused.document)
    cli.output.say(f"{paused.name} is {paused.status}: {paused.pause_reason}")
    return Exit.OK


@schedule_group.command("resume", epilog="Example: oa schedule resume nightly")
@schedule_argument
@command
async def resume(cli: Cli, schedule: str) -> Exit:
    """Resume a schedule, starting with the newest missed time if that is within the catch-up window."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        resumed = await client.commands.schedules.resume(schedule)
    cli.output.document(resumed.document)
    cli.output.say(f"{resumed.name} is {resumed.status}.")
    return Exit.OK


@schedule_group.command("trigger", epilog="Example: oa schedule trigger nightly")
@click.option(
    "--idempotency-key", "--key", "key", default="", metavar="KEY", help="Calls with the same key start one run."
)
@schedule_argument
@command
async def trigger(cli: Cli, schedule: str, key: str) -> Exit:
    """Start a run now, even of a paused schedule, and print its id."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        run = await client.commands.schedules.trigger(schedule, key)
    cli.output.document(run.document)
    cli.output.say(run.run_id)
    return Exit.OK


@schedule_group.command("backfill", epilog="Example: oa schedule backfill tick --from 2026-11-01 --to 2026-11-08")
@click.option("--from", "start", type=MOMENT, required=True, metavar="TIME", help="Start of the range, included.")
@click.option("--to", "end", type=MOMENT, required=True, metavar="TIME", help="End of the range, excluded.")
@schedule_argument
@command
async def backfill(cli: Cli, schedule: str, start: datetime, end: datetime) -> Exit:
    """Start a run for each past time of a range that has none yet. Times without an offset are UTC."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        runs = await client.commands.schedules.backfill(schedule, start, end)
    for one in runs:
        cli.output.document(one.document)
    if runs:
        rows = [[time_words(one.nominal_at), one.run_id, "had one" if one.existed else "started"] for one in runs]
        cli.output.table(["time", "run", ""], rows)
    else:
        cli.output.note("It has no time in this range.")
    return Exit.OK


@schedule_group.command("delete", epilog="Example: oa schedule delete nightly")
@schedule_argument
@command
async def delete(cli: Cli, schedule: str) -> Exit:
    """Delete a schedule. Its runs go on."""
    async with cli.site.client() as client:
        schedule = await _meant(client, schedule)
        await client.commands.schedules.delete(schedule)
    cli.output.document({"schedule": schedule})
    cli.output.say(f"{schedule} is deleted.")
    return Exit.OK


async def _meant(client: Client, schedule: str) -> str:
    """Return the id of a schedule, or the name that it was named by. Raises Refusal."""
    return await meant(_SCHEDULE, schedule, lambda: _listed(client))


async def _listed(client: Client) -> list[Listed]:
    """Return all schedules of the org."""
    found: list[Listed] = []
    token = ""
    while True:
        page = await client.commands.schedules.page(page_size=_PAGE, page_token=token)
        found += [Listed(one.schedule_id, one.name) for one in page.schedules]
        if not page.next_page_token or page.next_page_token == token:
            return found
        token = page.next_page_token


def _timing(expression: str, time_zone: str | None, every: timedelta | None, *, has_anchor: bool) -> Cron | Every:
    """What the options say, still without the anchor."""
    if bool(expression) == (every is not None):
        raise click.UsageError("Give --cron with an expression, or --every with a distance such as 15m.")
    if every is not None:
        if time_zone is not None:
            raise click.UsageError("--time-zone is for --cron; leave it out.")
        return Every(every)
    if has_anchor:
        raise click.UsageError("--anchor is for --every; leave it out.")
    return Cron(expression, "UTC" if time_zone is None else time_zone)


def _row(one: Schedule) -> list[str]:
    next_at = time_words(one.next_at) if one.status == "active" else ""
    return [one.name, one.status, one.timing, next_at, str(one.started), str(one.skipped), str(one.refused)]


def _show(output: Output, found: ScheduleDetails) -> None:
    one = found.schedule
    rows = [
        ["schedule", one.name],
        ["id", one.schedule_id],
        ["status", f"{one.status}: {one.pause_reason}" if one.pause_reason else one.status],
        ["times", one.timing],
        ["next", ", ".join(time_words(time) for time in found.next_times) or "none"],
        ["adapter", one.adapter],
        ["owner", one.owner],
        ["overlap", one.overlap],
        ["catch-up", duration_words(one.catch_up_ms)],
        ["last run", one.last_run_id or "none"],
        ["counted", f"{one.started} started, {one.skipped} skipped, {one.refused} refused"],
    ]
    output.pairs(rows)
    if found.recent:
        output.table(["time", "by", "outcome", "run or reason"], [_fate(time) for time in found.recent])


def _fate(time: ScheduledTime) -> list[str]:
    outcome = time.outcome if time.times == 1 else f"{time.times} {time.outcome}"
    why = time.run_id or f"{time.reason}: {time.message}"
    return [time_words(time.nominal_at), time.cause, outcome, why]
