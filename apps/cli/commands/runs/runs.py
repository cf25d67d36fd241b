"""`oa run start|list|show|result|tail|cancel`."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import click

from apps.cli.commands.runs.run_options import delayed, json_of, run_options, with_terminal
from apps.cli.exits import Exit, exit_of_finish, exit_of_run
from apps.cli.following.no_worker import NoWorkerHint
from apps.cli.following.rendering import progress_words
from apps.cli.following.run_ids import meant_run, remember_started
from apps.cli.following.tail import TailView
from apps.cli.input.stdin import attached
from apps.cli.input.tty import terminal_like_ours
from apps.cli.output import Output, bytes_words, error_document, ms_words
from apps.cli.program import Cli, command, raw_option, run_group, run_id_argument
from apps.cli.site_clock import now_at_site
from apps.cli.times import time_words
from oa_base.refusal import Refusal
from oa_base.visible import visible_json
from oa_client.client import Client
from oa_client.core.models import Finish, Run
from oa_client.core.store import CursorStore, WatermarkStore
from oa_client.core.wire import RUN_STATUSES
from oa_client.follow.items import Began, Broken, Item, Seen
from oa_client.follow.run_tail import RunTail
from oa_runlog import events
from oa_runlog.stdin import StdinPiece, piece_json
from oa_wire.strict.text import read_json

_START_EXAMPLES = """\
Example: oa run start --title nightly -- make test

Example: oa run start --stdin -- sort < names

Example: oa run start --tty -- ls --color

Example: oa run start --tty --stdin --raw -- bash

Example: oa run start --adapter support --input '{"question": "Why?"}'
"""


@run_group.command(
    "start",
    epilog=_START_EXAMPLES,
    context_settings={"allow_interspersed_args": False},
)
@click.option("--detach", is_flag=True, help="Do not follow the run; print its id.")
@click.option("--stdin", is_flag=True, help="Send standard input of `oa` to the command, and what `oa run send` says.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal, as large as yours, or 80 by 24.")
@raw_option
@run_options
@command
async def start(
    cli: Cli, spec: events.RunSpec, detach: bool, stdin: bool, tty: bool, raw: bool, delay: timedelta | None = None
) -> int:
    """Start a run of a command or an agent, and follow it to its end. The exit code is that of the run's command.

    With --stdin, the command reads the standard input of `oa` to its end; with --detach, what `oa run send` says.

    With --tty, the command has a terminal of its own, which takes the size of yours. Your terminal shows only what is
    safe of its output: see --raw. With --stdin, too, what you type goes there key by key; Ctrl-] leaves the run alone.
    """
    cli.output.raw = raw
    spec = _with_stdin(spec) if stdin else spec
    spec = with_terminal(spec, terminal_like_ours()) if tty else spec
    async with cli.site.client() as client:
        if delay is not None:
            spec = delayed(spec, delay, await now_at_site(client))
        run = await client.commands.create_run(spec)
        remember_started(client, cli.site.folder, run.run_id)
        if detach:
            cli.output.say(run.run_id)
            cli.output.document(run.document)
            return Exit.OK
        cli.output.note(f"{run.run_id} · {run.title}")
        terminal = spec.input.terminal if isinstance(spec.input, events.ExecSpec) else None
        async with attached(client.commands.talk, run.run_id, cli.output, stdin=stdin, terminal=terminal):
            return await follow(cli, client, run.run_id)


def _with_stdin(spec: events.RunSpec) -> events.RunSpec:
    if not isinstance(spec.input, events.ExecSpec):
        raise click.UsageError("--stdin is for a command; an agent hears what oa run send says.")
    return replace(spec, input=replace(spec.input, stdin=True))


@run_group.command("list", epilog="Example: oa run list --mine --status running")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Maximum number of runs.")
@click.option("--status", type=click.Choice(RUN_STATUSES), default=None, help="Only runs with this status.")
@click.option("--mine", is_flag=True, help="Only runs that you, or the service account of OA_API_KEY, started.")
@command
async def list_runs(cli: Cli, limit: int, status: str | None, mine: bool) -> Exit:
    """List the runs of your org's people and service accounts, newest first."""
    async with cli.site.client() as client:
        page = await client.commands.runs(page_size=limit, status=status or "", own=mine)
    for run in page.runs:
        cli.output.document(run.document)
    headers = ["run", "status", "title", "created", "events", "output"]
    rows = [
        [
            run.run_id,
            run.status,
            run.title,
            time_words(run.created_at),
            str(run.latest_seq),
            bytes_words(run.text_bytes),
        ]
        for run in page.runs
    ]
    if any(run.progress for run in page.runs):
        headers.append("progress")
        rows = [[*row, _progress_words(run)] for row, run in zip(rows, page.runs, strict=True)]
    if rows:
        cli.output.table(headers, rows, elastic="title")
    elif status or mine:
        cli.output.note("No such run. All runs: oa run list")
    else:
        cli.output.note("No runs yet. Start one: oa run start -- echo hello")
    return Exit.OK


@run_group.command("show", epilog="Example: oa run show latest")
@run_id_argument
@command
async def show(cli: Cli, run_id: str) -> Exit:
    """Show the state of a run, from the authority."""
    async with cli.site.client() as client:
        run = await client.commands.run(await meant_run(client, cli.site.folder, run_id))
        listed = await _listed(client, run.run_id)
    progress = {"progress": listed.document["progress"]} if listed and listed.progress else {}
    cli.output.document({**run.document, **progress})
    _show_run(cli.output, run, _progress_words(listed))
    return Exit.OK


@run_group.command("result", epilog="Example: oa run result latest --json")
@run_id_argument
@command
async def result(cli: Cli, run_id: str) -> int:
    """Print what an agent returned, as JSON. The exit code is the same as when following the run.

    With --json, a run that did not succeed is an error document on stderr, and no result is null."""
    async with cli.site.client() as client:
        run = await client.commands.run(await meant_run(client, cli.site.folder, run_id))
    finish = run.finish
    if finish is None:
        text = f"the run is {run.status} and has no result yet; follow it with oa run tail"
        raise Refusal("run_not_finished", text, field="run_id")
    if finish.result_json:
        cli.output.say(_result_line(finish.result_json))
        cli.output.document({"result": _result_value(finish.result_json)})
    else:
        _tell_no_result(cli.output, run.run_id, finish)
    return exit_of_finish(finish.outcome, finish.exit_code, finish.signal)


def _tell_no_result(output: Output, run_id: str, finish: Finish) -> None:
    """Say that a run ended without a result; for programs, as an error if it did not succeed."""
    message = f"{run_id} {finish.outcome} without a result" + (f": {finish.message}" if finish.message else "")
    output.note(message)
    if finish.outcome == events.Outcome.SUCCEEDED:
        output.document({"result": None})
    elif output.as_json:
        reason = finish.reason or finish.outcome
        about = {"run_id": run_id, "outcome": finish.outcome}
        output.error(reason, message, error_document(reason, message, metadata=about))


@run_group.command("tail", epilog="Example: oa run tail latest --from-start")
@click.option("--from-start", is_flag=True, help="Show the run from its first event on, not from where you left off.")
@click.option("--snapshot", is_flag=True, help="Begin with the run's current state; do not fetch its events so far.")
@raw_option
@run_id_argument
@command
async def tail(cli: Cli, run_id: str, from_start: bool, snapshot: bool, raw: bool) -> int:
    """Follow a run to its end, from where you left off. The exit code is that of the run's command."""
    if from_start and snapshot:
        raise click.UsageError("Give --from-start or --snapshot, not both.")
    cli.output.raw = raw
    async with cli.site.client() as client:
        meant = await meant_run(client, cli.site.folder, run_id)
        return await follow(cli, client, meant, show_stored=from_start, patient=False, snapshot=snapshot)


@run_group.command("send", epilog="Example: oa run send latest 'Look at the second file, too.'")
@click.option("--input", "given", default=None, metavar="JSON|@FILE", help="What to say: JSON, or a file of it.")
@click.option("--end", "ends", is_flag=True, help="End the standard input of the run's command.")
@run_id_argument
@click.argument("text", required=False)
@command
async def send(cli: Cli, run_id: str, text: str | None, given: str | None, ends: bool) -> Exit:
    """Say something to the agent of a run: TEXT, or any JSON.

    A command that was started with --stdin reads TEXT as a line.
    """
    if (text is not None) + (given is not None) + ends != 1:
        raise click.UsageError("Give a TEXT, or --input with JSON, or --end.")
    said = _said(text, given)
    async with cli.site.client() as client:
        meant = await meant_run(client, cli.site.folder, run_id)
        if ends and "exec" not in (await client.commands.run(meant)).document.get("spec", {}):
            raise click.UsageError("--end is for the run of a command; an agent hears what it is told.")
        seq = await client.commands.talk.send(meant, said)
    cli.output.document({"runId": meant, "seq": seq})
    cli.output.note(f"{meant} has got it, as its event {seq}.")
    return Exit.OK


@run_group.command("cancel", epilog="Example: oa run cancel latest --reason 'no longer needed'")
@click.option("--reason", default="", help="Why, in your words.")
@run_id_argument
@command
async def cancel(cli: Cli, run_id: str, reason: str) -> Exit:
    """Request that a run be canceled."""
    async with cli.site.client() as client:
        run = await client.commands.cancel(await meant_run(client, cli.site.folder, run_id), reason)
    cli.output.document(run.document)
    cli.output.say(f"{run.run_id} is {run.status}.")
    return Exit.OK


async def follow(
    cli: Cli, client: Client, run_id: str, *, show_stored: bool = False, patient: bool = True, snapshot: bool = False
) -> int:
    """Show a run to its end. Events that are stored already are shown only with `show_stored`; its finish always.

    `snapshot`: begin with its current state. Nothing is stored then, because the store holds all events of a run.

    Raises Refusal if the site can't be reached at first, unless `patient`. Later, it waits for the site.
    """
    view = TailView(cli.output)
    hint = NoWorkerHint(cli.output, client.edge.now_at_edge)
    exit_code: int = Exit.OK
    finish: events.RunFinished | None = None
    with closing(cli.site.store(client)) as kept:
        store: WatermarkStore = CursorStore() if snapshot else kept
        try:
            async with aclosing(RunTail(client, store, run_id, snapshots=snapshot).items()) as items:
                async for item in items:
                    hint.heard(item)
                    if isinstance(item, Broken) and not patient:
                        await client.commands.caller()
                    patient = patient or not isinstance(item, Seen) or item.live
                    finish = _finish_of(item)
                    exit_code = exit_of_run(finish) if finish else _exit_at(item, exit_code)
                    new = finish or show_stored or not isinstance(item, Seen) or item.live
                    view.show(item) if new else view.skip(item)
                    if cli.output.gone:
                        break  # nobody can see what follows
        except asyncio.CancelledError:
            if finish is None:  # else the connection was just being closed
                cli.goes_on = f"the run goes on; `oa run tail {run_id}` follows it, `oa run cancel {run_id}` ends it"
            raise
        finally:
            hint.cancel()
    return exit_code


def _finish_of(item: Item) -> events.RunFinished | None:
    body = item.event.body if isinstance(item, Seen) else None
    return body if isinstance(body, events.RunFinished) else None


def _exit_at(item: Item, otherwise: int) -> int:
    """Return the exit code of a run that had ended before it was followed."""
    finish = item.at.run.finish if isinstance(item, Began) else None
    return exit_of_finish(finish.outcome, finish.exit_code, finish.signal) if finish else otherwise


def _said(text: str | None, given: str | None) -> str:
    """Return what is said to a run, as JSON."""
    if text is not None:
        return json.dumps(text, ensure_ascii=False)
    return piece_json(StdinPiece(b"", ends=True)) if given is None else json_of(given)


# In JSON, these occur only outside of strings.
_BLANKS = str.maketrans("\n\r\t", "   ")


def _result_line(text: str) -> str:
    """Return a result to the letter, in one line that is safe for a terminal."""
    return visible_json(text.translate(_BLANKS))


def _result_value(text: str) -> Any:
    """Return a result's value. A result that is no JSON, though the authority takes nothing else, becomes a text."""
    try:
        return read_json(text)
    except ValueError:
        return text


async def _listed(client: Client, run_id: str) -> Run | None:
    """Return the read model's view of a run, which has its progress; None if it can't be had now."""
    try:
        page = await client.commands.runs(page_size=1, prefix=run_id)
    except Refusal:
        return None
    return next((run for run in page.runs if run.run_id == run_id), None)


def _progress_words(run: Run | None) -> str:
    progress = run.progress if run else None
    return progress_words(progress.text, progress.done, progress.total) if progress else ""


def _show_run(output: Output, run: Run, progress: str) -> None:
    rows = [
        ["run", run.run_id],
        ["title", run.title],
        ["status", run.status],
        ["adapter", run.adapter],
        *([["worker", run.worker_id or "none"]] if run.worker_id or not run.ended else []),
        ["attempts", str(run.attempt)],
        ["created", time_words(run.created_at)],
        ["retention", run.retention_class],
        *([["parent", run.parent_run_id]] if run.parent_run_id else []),
        *([["not before", time_words(run.not_before)]] if run.not_before and not run.ended else []),
        *([["deadline", time_words(run.deadline)]] if run.deadline and not run.ended else []),
        ["events", str(run.latest_seq)],
        ["chain head", run.chain_head.hex()],
    ]
    if progress:
        rows.append(["progress", progress])
    if run.finish is not None:
        finish = run.finish
        rows.append(["finish", " ".join(part for part in (finish.outcome, finish.reason, finish.message) if part)])
        if finish.result_json:
            rows.append(["result", _result_line(finish.result_json)])
        if finish.duration_ms:
            code = f"signal {finish.signal}" if finish.signal else f"exit code {finish.exit_code}"
            sizes = f"stdout {bytes_words(finish.stdout_bytes)}, stderr {bytes_words(finish.stderr_bytes)}"
            rows.append(["measured", f"{code} · {ms_words(finish.duration_ms)} · {sizes}"])
    output.pairs(rows)
