"""`oa request list|answer`: what a run asks people."""

from __future__ import annotations

import click

from apps.cli.exits import Exit
from apps.cli.following.ids import Kind, Listed, meant
from apps.cli.following.run_ids import meant_run
from apps.cli.program import Cli, command, request_group, run_id_argument
from apps.cli.times import time_words
from oa_client.client import Client
from oa_client.core.models import AskedRequest

_REQUEST = Kind("request", "request_id", "oa request list --all")


@request_group.command("list", epilog="Example: oa request list latest")
@click.option("--all", "settled", is_flag=True, help="Include those that are answered, or whose time is over.")
@run_id_argument
@command
async def list_requests(cli: Cli, run_id: str, settled: bool) -> Exit:
    """List the open requests of a run, in order."""
    async with cli.site.client() as client:
        run = await meant_run(client, cli.site.folder, run_id)
        asked = [one for one in await client.commands.talk.requests(run) if settled or one.state == "open"]
    for one in asked:
        cli.output.document(one.document)
    if asked:
        cli.output.table(["request", "asks", "answers", "until", "answered"], [_row(one) for one in asked])
    else:
        cli.output.note(f"{run} asks nothing now.")
    return Exit.OK


def _row(one: AskedRequest) -> list[str]:
    answers = ", ".join(name if name == label else f"{name}: {label}" for name, label in one.options.items())
    answer = one.answer if one.state == "answered" else "" if one.state == "open" else f"expired {one.answer}".strip()
    return [one.request_id, one.title, answers or "a text", time_words(one.deadline_at), answer]


@request_group.command("answer", epilog="Example: oa request answer latest r1 yes")
@click.option("--text", default="", help="The answer to a request for text.")
@run_id_argument
@click.argument("request_id")
@click.argument("option", required=False, default="")
@command
async def answer(cli: Cli, run_id: str, request_id: str, option: str, text: str) -> Exit:
    """Answer a request with one of its options, or with a text. The first answer counts.

    `latest` is the newest open request.
    """
    if bool(option) == bool(text):
        raise click.UsageError("Give an OPTION, such as yes, or --text.")
    async with cli.site.client() as client:
        run = await meant_run(client, cli.site.folder, run_id)
        request = await meant(_REQUEST, request_id, lambda: _asked(client, run))
        seq = await client.commands.talk.answer(run, request, option=option, text=text)
    cli.output.document({"runId": run, "requestId": request, "seq": seq})
    cli.output.note(f"Answered: it is event {seq} of {run}.")
    return Exit.OK


async def _asked(client: Client, run_id: str) -> list[Listed]:
    """Return all requests of a run, the open ones last."""
    asked = await client.commands.talk.requests(run_id)
    return [Listed(one.request_id) for one in sorted(asked, key=lambda one: one.state == "open")]
