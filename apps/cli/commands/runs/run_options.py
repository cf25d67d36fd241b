"""The options that say what a run executes, when a worker gets it, and what happens if it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import click

from apps.cli.times import DURATION, DURATION_OR_ZERO, MOMENT, MOMENT_OR_DELAY
from oa_base.clock import ns_of
from oa_client.core.schedules import milliseconds
from oa_client.sdk.queue import Queue, Retry, policy_of
from oa_runlog.events import AgentSpec, Concurrency, ExecSpec, RunSpec, Terminal, ThreadPolicy

_NONE = timedelta()
_Options = tuple[Callable[[Any], Any], ...]


class _Concurrent(click.ParamType[Concurrency]):
    """ "deploy=1"."""

    name = "concurrency"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Concurrency:
        """Return the key and its limit. Any other value is a usage error."""
        if isinstance(value, Concurrency):
            return value
        key, _, limit = str(value).rpartition("=")
        if not key or not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:6]) <= 10_000):
            self.fail("Give a key and a number from 1 to 10000, as deploy=1.", param, ctx)
        return Concurrency(key, int(limit))


_WHAT = (
    click.option("--title", default="", help="Title for people; by default made from the command."),
    click.option("--adapter", "agent", default="", metavar="NAME", help="Agent that runs, instead of a command."),
    click.option(
        "--input", "given", default=None, metavar="JSON|@FILE", help="Input of the agent: JSON, or a file of it."
    ),
    click.option("--cwd", "working_directory", default="", help="Directory on the worker's machine."),
    click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Variable for the command."),
    click.option("--timeout", type=DURATION, default=None, help="End the command if it runs for longer than this."),
    click.option("--timeout-ms", type=click.IntRange(min=1), default=None, hidden=True),
    click.option(
        "--retention",
        "retention_class",
        default="",
        metavar="CLASS",
        help="Retention class: how long after its end its events move to the archive. By default the default class.",
    ),
    click.option("--thread", "thread_id", default=None, metavar="ID", help="Conversation that the run belongs to."),
    click.option(
        "--if-busy",
        type=click.Choice([policy.value for policy in ThreadPolicy]),
        default=None,
        help="What to do while an older run of the thread has not ended. By default, both run side by side.",
    ),
)
_PRIORITY = (
    click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher ones go first; 0 is usual."),
)
_NOT_BEFORE = (
    click.option(
        "--not-before", type=MOMENT_OR_DELAY, metavar="TIME|+DURATION", help="No worker gets the run before this time."
    ),
)
_NOT_BEFORE_OF_A_SCHEDULE = (
    click.option("--not-before", type=MOMENT, metavar="TIME", help="No worker gets any of the runs before this time."),
)
_QUEUE = (
    click.option(
        "--start-timeout", type=DURATION, default=None, help="The run fails if no worker starts it within this time."
    ),
    click.option("--run-timeout", type=DURATION, default=None, help="The run fails if it takes longer than this."),
    click.option("--concurrency", type=_Concurrent(), metavar="KEY=N", help="At most N runs with this key at a time."),
    click.option("--retries", type=click.IntRange(0, 99), default=0, help="How often a failed run is tried again."),
    click.option(
        "--retry-delay",
        type=DURATION_OR_ZERO,
        default=None,
        show_default="1s",
        help="Pause before the first retry, doubled for each further one; 0s for none.",
    ),
)
_ARGV = click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")


def run_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command, and a run's command line as its last argument. It gets a RunSpec as `spec`, and
    maybe a timedelta as `delay`: see `delayed`."""
    return _with_options(run, _NOT_BEFORE)


def scheduled_run_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same for the runs of a schedule, which all have one spec: no time in it counts from now."""
    return _with_options(run, _NOT_BEFORE_OF_A_SCHEDULE)


def _with_options(run: Callable[..., Any], not_before: _Options) -> Callable[..., Any]:
    @wraps(run)
    def with_spec(
        *args: Any,
        title: str,
        agent: str,
        given: str | None,
        working_directory: str,
        variables: tuple[str, ...],
        timeout: timedelta | None,
        timeout_ms: int | None,
        retention_class: str,
        thread_id: str | None,
        if_busy: str | None,
        argv: tuple[str, ...],
        priority: int,
        not_before: datetime | timedelta | None,
        start_timeout: timedelta | None,
        run_timeout: timedelta | None,
        concurrency: Concurrency | None,
        retries: int,
        retry_delay: timedelta | None,
        **others: Any,
    ) -> Any:
        environment = dict(_variable(each) for each in variables)
        input_json = _input_of(agent, given, argv)
        command = ExecSpec(argv, working_directory, environment, milliseconds(timeout or _NONE) or timeout_ms or 0)
        if isinstance(not_before, timedelta):
            others["delay"], not_before = not_before, None
        queue = Queue(
            priority=priority,
            not_before=not_before,
            start_timeout=start_timeout or _NONE,
            run_timeout=run_timeout or _NONE,
            concurrency=concurrency,
            retry=_retry(retries, retry_delay),
        )
        policy = ThreadPolicy(if_busy) if if_busy else None
        what = AgentSpec(input_json) if agent else command
        spec = RunSpec(agent or "exec", what, title, _thread(thread_id), {}, retention_class, policy_of(queue), policy)
        return run(*args, spec=spec, **others)

    made: Callable[..., Any] = _ARGV(with_spec)
    for option in reversed((*_WHAT, *_PRIORITY, *not_before, *_QUEUE)):
        made = option(made)
    return made


def _retry(retries: int, delay: timedelta | None) -> Retry | None:
    if retries:
        return Retry(failures=retries + 1) if delay is None else Retry(failures=retries + 1, delay=delay)
    if delay is not None:
        raise click.UsageError("--retry-delay is for --retries; give how often, too.")
    return None


def _thread(given: str | None) -> str:
    if given == "":
        raise click.UsageError("--thread is empty; give the id of a conversation, or leave it out.")
    return given or ""


def delayed(spec: RunSpec, delay: timedelta, now: datetime) -> RunSpec:
    """Return the same run, which no worker gets before `delay` has passed. `now`: by the clock of the site."""
    return replace(spec, queue=replace(spec.queue, not_before_ns=ns_of(now + delay)))


def with_terminal(spec: RunSpec, terminal: Terminal) -> RunSpec:
    """Return the same run of a command, with a terminal."""
    if not isinstance(spec.input, ExecSpec):
        raise click.UsageError("--tty is for a command; an agent has no terminal.")
    return replace(spec, input=replace(spec.input, terminal=terminal))


def json_of(given: str) -> str:
    """Return a JSON text, or that of the file whose name follows an @."""
    return _file_text(given[1:]) if given.startswith("@") else given


def _input_of(agent: str, given: str | None, argv: tuple[str, ...]) -> str:
    """Return the agent's input; empty for a run of a command."""
    if not agent:
        if given is not None:
            raise click.UsageError("--input is for an agent; name it with --adapter.")
        if not argv:
            raise click.UsageError("Give a command after --, or an agent with --adapter and --input.")
        return ""
    if argv:
        raise click.UsageError("An agent takes no command; leave out what follows the options.")
    if given is None:
        raise click.UsageError("Give the agent its input: --input '{…}', or --input @file.")
    return json_of(given)


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path!r} can't be read ({type(error).__name__}).", param_hint="--input") from None


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--env")
    return name, value
