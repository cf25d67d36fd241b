"""`oa codex`."""

from __future__ import annotations

from pathlib import Path

import click

from apps.cli.commands.local.conversation import Conversation, thread_of
from apps.cli.following.run_ids import meant_run
from apps.cli.program import Cli, command, oa
from oa_worker.adapters.codex.inputs import APPROVALS, SANDBOXES


@oa.command("codex", epilog="Example: oa codex --sandbox workspace-write 'Make the tests pass.'")
@click.option("--cwd", "working_directory", default="", help="Folder on the worker's machine; by default this one.")
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOXES),
    default="read-only",
    show_default=True,
    help="What commands may do without an approval.",
)
@click.option(
    "--ask",
    "approval",
    type=click.Choice(APPROVALS),
    default="untrusted",
    show_default=True,
    help="When Codex asks you: before anything not known to be harmless, when it finds that it has to, or never.",
)
@click.option("--model", default="", help="Model; by default the one that the worker's Codex is set to.")
@click.option("--continue", "before", default="", metavar="RUN_ID", help="Continue the thread of this turn.")
@click.argument("prompt", required=False, default="")
@command
async def codex(
    cli: Cli, prompt: str, working_directory: str, sandbox: str, approval: str, model: str, before: str
) -> int:
    """Talk to Codex: it works in a folder, shows what it does, and asks you before it does more than it may.

    Each turn is a run. Type during a turn to steer it; answer a question with yes or no, a number or a text. Ctrl-C
    interrupts the turn. Between turns, type the next prompt; Ctrl-D ends the conversation. The exit code is that of the
    last turn. A worker with the adapter codex has to run on this machine (docs/codex.md).
    """
    folder = working_directory or str(Path.cwd())
    options = {"working_directory": folder, "sandbox": sandbox, "approval": approval}
    if model:
        options["model"] = model
    async with cli.site.client() as client:
        group, resume = "", ""
        if before:
            group, resume = await thread_of(cli, client, await meant_run(client, cli.site.folder, before))
        return await Conversation(cli, client, options, group, resume).hold(prompt)
