"""`oa demo`: what `make run` runs."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import click

from apps.cli.demo.parts import RunningStack, attached_worker, ready_stack
from apps.cli.demo.story import Story, Watched
from apps.cli.demo.view import View
from apps.cli.exits import Exit, exit_of_run
from apps.cli.program import Cli, command, oa
from apps.cli.settings import running_stack
from oa_localstack.settings import nearest_home
from oa_platform.process.signals import stop_signals

READ_MODEL_TIMEOUT_S = 15.0
_REPOSITORY = Path(__file__).resolve().parents[3]


@oa.command(
    "demo",
    epilog="Example: oa demo --once -- sh -c 'echo hello; sleep 1; echo bye'",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--once", is_flag=True, help="Stop everything after the proof.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
@command
async def demo(cli: Cli, argv: tuple[str, ...], once: bool) -> int:
    """Show the whole path: start a stack, run a command, watch it, cut the connection, resume, prove it.

    By default the command is git log --stat of this repository. The exit code is the command's own, or 65 if any check
    fails.
    """
    telling = asyncio.create_task(_tell(cli, argv, once))
    try:
        with stop_signals(lambda number: _cancel(telling)):
            return await telling
    except asyncio.CancelledError:
        raise click.Abort from None


def _cancel(telling: asyncio.Task[int]) -> None:
    telling.cancel()


async def _tell(cli: Cli, argv: tuple[str, ...], once: bool) -> int:
    view = View(cli.output)
    view.opening(reused=running_stack(cli.settings) is not None)
    async with ready_stack(cli, view.process) as stack:
        view.ready(stack.urls)
        story = Story(cli.site_of_person, view)
        view.step(1, "Sign in")
        await story.sign_in(stack.home / "dev-mail.jsonl")
        view.step(2, "A worker")
        async with attached_worker(cli, stack, "demo") as worker:
            view.worker(worker.worker_id, worker.pid)
            watched, ok = await _run_and_prove(story, view, argv)
            view.done(ok)
            exit_code = exit_of_run(watched.finish) if ok and watched.finish else int(Exit.NOT_PROVED)
            if not once and not cli.output.gone:
                view.staying_up(stack.urls, watched.run.run_id, stack.own is not None, _prefix(cli, stack))
                with suppress(asyncio.CancelledError):  # Ctrl-C is how this ends
                    await _until_given_up(stack, view)
                    exit_code = Exit.REFUSED
    return exit_code


async def _run_and_prove(story: Story, view: View, argv: tuple[str, ...]) -> tuple[Watched, bool]:
    view.step(3, "A run: watched live, cut, resumed")
    watched = await story.watch(argv or default_command(), _REPOSITORY if not argv else Path.cwd())
    checks = await story.compare(watched)
    view.failed(checks)
    there = await story.summarised(watched.run.run_id, READ_MODEL_TIMEOUT_S)
    view.summarised(there)
    return watched, there and all(check.holds for check in checks)


def _prefix(cli: Cli, stack: RunningStack) -> str:
    return "" if nearest_home().absolute() == stack.home else f"OA_HOME={shlex.quote(str(stack.home))} "


async def _until_given_up(stack: RunningStack, view: View) -> None:
    """Wait until supervision gives up a process of our own stack; with somebody else's stack, wait forever."""
    if stack.own is None:
        await asyncio.Event().wait()
    else:
        view.process(await stack.own.wait_given_up())


def default_command() -> tuple[str, ...]:
    """Return a command for the history of this repository or, without one, for something that every Python has."""
    if shutil.which("git") and (_REPOSITORY / ".git").exists():
        return ("git", "log", "--stat")
    return (sys.executable, "-c", "import this")
