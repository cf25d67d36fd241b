"""The click program, and what all commands share."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any

import click

from apps.cli.output import Output
from apps.cli.settings import CliSettings, load_settings, open_site
from oa_base.refusal import Refusal
from oa_base.visible import is_text
from oa_client.client import VERSION
from oa_client.cpython.site import Site

_HELP = """Durable agent runs: start them, watch them live, prove what they did.

`oa up` starts a whole stack on this machine; `oa demo` shows the whole path on a real run. Every command takes
`--json`. A run that is followed ends `oa` with its command's exit code; `oa`'s own are 64 and above: 64 wrong usage,
65 not proved, 69 not reachable, 70 refused, 74 output lost, 77 not signed in, 79 run canceled, 130 interrupted.
"""


class Cli:
    """What a command gets: its output, the settings, and the site."""

    def __init__(self) -> None:
        self.output = Output()
        self.env = os.environ

    @functools.cached_property
    def settings(self) -> CliSettings:
        """The settings; raises Refusal(invalid_setting)."""
        return load_settings(self.env)

    @functools.cached_property
    def site(self) -> Site:
        """The site that commands go to; raises Refusal(invalid_setting)."""
        return open_site(self.settings, self.env)

    @functools.cached_property
    def site_of_person(self) -> Site:
        """The same for what only a person does, whatever API key is set."""
        return open_site(self.settings, self.env, as_person=True)


Body = Callable[..., Coroutine[Any, Any, int] | int]


def command(body: Body) -> Callable[..., int]:
    """A command from a function, or a coroutine function, that takes the `Cli` first; adds `--json`."""

    def run(cli: Cli, /, *args: Any, as_json: bool, **options: Any) -> int:
        cli.output.as_json = as_json
        _refuse_what_is_no_text(click.get_current_context())
        result = body(cli, *args, **options)
        return result if isinstance(result, int) else asyncio.run(result)

    functools.update_wrapper(run, body)
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, one document a line.")(click.pass_obj(run))


raw_option = click.option(
    "--raw", is_flag=True, help="On a terminal, too, exactly what the run wrote: it may drive the terminal."
)


def _refuse_what_is_no_text(context: click.Context) -> None:
    """Bytes that are no UTF-8 can be a path of this machine, and nothing that is sent. Raises Refusal `invalid_value`.

    Their value is not shown: it may be a secret.
    """
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        many = isinstance(value, tuple)
        for index, text in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(text, str) and not is_text(text) and not isinstance(parameter.type, click.Path):
                name = parameter.opts[0] if isinstance(parameter, click.Option) else str(parameter.name)
                field = f"{name}[{index}]" if many else name
                message = f"{field} holds bytes that are no UTF-8; give text"
                raise Refusal("invalid_value", message, field=field)


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="oa")
def oa() -> None:
    """The program itself; its help is `_HELP`."""


@oa.group("run")
def run_group() -> None:
    """Runs: start, list, show, follow, cancel."""


@oa.group("worker")
def worker_group() -> None:
    """Workers: take runs and execute them."""


@oa.group("key")
def key_group() -> None:
    """API keys: how workers and scripts sign in."""


@oa.group("replay")
def replay_group() -> None:
    """Replays: a run as one file that proves itself."""


@oa.group("receipt")
def receipt_group() -> None:
    """Receipts: show them, check them, also offline."""


@oa.group("admin")
def admin_group() -> None:
    """An installation: its secrets and its database."""
