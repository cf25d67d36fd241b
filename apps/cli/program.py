"""The click program, and what all commands share.

A command's module is loaded only when the command is called, so that `oa --version` pays for none of these modules and
their imports. This module and those that it imports have to stay light; a test enforces that.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from apps.cli.output import Output
from oa_base.version import VERSION
from oa_base.visible import is_text
from oa_platform.process import interrupts

if TYPE_CHECKING:
    from apps.cli.settings import CliSettings
    from oa_client.cpython.site import Site

_HELP = """Durable agent runs: start them, watch them live, prove what they did.

`oa up` starts a whole stack on this machine; `oa demo` shows the whole path on a real run. Every command takes
`--json`. After following a run, `oa` exits with the exit code of the run's command. Its own codes are 64 and above:
64 wrong usage, 65 not proved, 69 not reachable, 70 refused, 74 output lost, 77 not signed in, 79 run canceled,
130 interrupted.
"""


class Cli:
    """The context of a command: its output, the settings, and the site."""

    def __init__(self) -> None:
        self.output = Output()
        self.env = os.environ
        self.goes_on = ""
        """The message about an interrupted command: what goes on without it."""

    @functools.cached_property
    def settings(self) -> CliSettings:
        """The settings; raises Refusal(invalid_setting)."""
        from apps.cli.settings import load_settings

        return load_settings(self.env)

    def stack_missing_at(self) -> str:
        """Return where the local stack would listen if commands go to it and it does not run; otherwise empty."""
        from apps.cli.settings import stack_missing_at

        return stack_missing_at(self.settings, self.env)

    @functools.cached_property
    def site(self) -> Site:
        """The site that commands go to; raises Refusal(invalid_setting)."""
        from apps.cli.settings import open_site

        return open_site(self.settings, self.env)

    @functools.cached_property
    def site_of_person(self) -> Site:
        """The same site for what only a person does, whatever API key is set."""
        from apps.cli.settings import open_site

        return open_site(self.settings, self.env, as_person=True)


_COMPLETION_HELP_COLUMNS = 60
"""Maximum width of the help that a shell shows beside completions."""
Body = Callable[..., Coroutine[Any, Any, int] | int]


def command(body: Body) -> Callable[..., int]:
    """Make a command of a function, or a coroutine function, whose first argument is the `Cli`. Adds `--json`."""

    def run(cli: Cli, /, *args: Any, as_json: bool, **options: Any) -> int:
        cli.output.as_json = as_json
        interrupts.is_an_exception()
        _refuse_what_is_no_text(click.get_current_context())
        _refuse_empty_names(click.get_current_context())
        try:
            result = body(cli, *args, **options)
            return result if isinstance(result, int) else _finished(result)
        except KeyboardInterrupt:
            raise click.Abort from None  # for an interrupt, click itself would write an empty line

    functools.update_wrapper(run, body)
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, a document per line.")(click.pass_obj(run))


def _finished(body: Coroutine[Any, Any, int]) -> int:
    import asyncio

    return asyncio.run(body)


raw_option = click.option(
    "--raw", is_flag=True, help="Write the run's output unchanged, even to a terminal, which it may then control."
)


run_id_argument = click.argument("run_id")
"""A run; `apps.cli.following.run_ids` finds the one that is meant."""


def _refuse_what_is_no_text(context: click.Context) -> None:
    """Refuse arguments that are not UTF-8, except for paths on this machine. Raises Refusal `invalid_value`.

    The message does not show the value, because it may be a secret.
    """
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        many = isinstance(value, tuple)
        for index, text in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(text, str) and not is_text(text) and not isinstance(parameter.type, click.Path):
                name = parameter.opts[0] if isinstance(parameter, click.Option) else str(parameter.name)
                field = f"{name}[{index}]" if many else name
                from oa_base.refusal import Refusal

                message = f"{field} holds bytes that are no UTF-8; give text"
                raise Refusal("invalid_value", message, field=field)


def _refuse_empty_names(context: click.Context) -> None:
    """Refuse what may be left out, names something, and is empty. Raises click.BadParameter.

    A script whose variable is not set means something: without it, the command would do something else. An option
    names something if its metavar says what; one that takes any text has none, or TEXT. An argument does if it is an
    id.
    """
    for parameter in context.command.params:
        if isinstance(parameter, click.Option):
            names = parameter.metavar not in (None, "TEXT")
        else:
            names = not parameter.required and str(parameter.name).endswith("_id")
        if not names:
            continue
        value, source = context.params.get(str(parameter.name)), context.get_parameter_source(str(parameter.name))
        values = value if isinstance(value, tuple) else (value,)
        if "" in values and source is click.core.ParameterSource.COMMANDLINE:
            raise click.BadParameter("It is empty. Give a value, or leave it out.", context, parameter)


class LazyGroup(click.Group):
    """A group whose commands are registered when their modules are loaded, each when it is called."""

    group_class = type
    """Groups in it are such groups, too."""

    def __init__(self, *args: Any, module: str = "", later: Mapping[str, tuple[str, str]] | None = None, **more: Any):
        """`module` registers the whole group. `later`: name -> module and short help of a command."""
        super().__init__(*args, **more)
        self._module = module
        self._later = later or {}

    def list_commands(self, context: click.Context) -> list[str]:
        """See click."""
        self._load(self._module)
        return sorted({*self.commands, *self._later})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """See click."""
        self._load(self._module)
        if name not in self.commands and name in self._later:
            self._load(self._later[name][0])
        return self.commands.get(name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """See click. Loads no module of a single command."""
        names = self.list_commands(context)
        limit = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.short_help_of(name, limit)) for name in names])

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """See click. A group without an example of its own shows that of its first command."""
        if self.epilog or not self.commands:
            super().format_epilog(context, formatter)
        else:
            next(iter(self.commands.values())).format_epilog(context, formatter)

    def short_help_of(self, name: str, limit: int) -> str:
        """Return the line of one command in the help of its group."""
        return self.commands[name].get_short_help_str(limit) if name in self.commands else self._later[name][1]

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """See click. Loads no module of a single command."""
        names = [name for name in self.list_commands(context) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self.short_help_of(name, _COMPLETION_HELP_COLUMNS)) for name in names]
        return [*items, *click.Command.shell_complete(self, context, incomplete)]

    @staticmethod
    def _load(module: str) -> None:
        if module:
            importlib.import_module(f"apps.cli.commands.{module}")


_COMMANDS = {
    "codex": ("local.codex", "Talk to Codex: it works in a folder, shows what it does, and asks you."),
    "completion": ("completion", "Print the script that lets a shell complete commands and options of `oa`."),
    "demo": (
        "local.demo",
        "Show the whole path: start a stack, run a command, watch it.",
    ),
    "down": ("local.stack", "Stop the stack that another shell runs, or that was detached."),
    "login": ("identity.account", "Sign in with a code sent by e-mail."),
    "logout": ("identity.account", "End the session, here and on the server."),
    "status": ("local.stack", "Show the processes of the local stack and whether they are ready."),
    "up": ("local.stack", "Start a whole stack on this machine and keep it running until Ctrl-C."),
}


@click.group(
    cls=LazyGroup,
    later=_COMMANDS,
    help=_HELP,
    epilog="Example: oa run start --title nightly -- make test",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, prog_name="oa")
def oa() -> None:
    """The program itself; its help is `_HELP`."""


@oa.group("run", cls=LazyGroup, module="runs.runs")
def run_group() -> None:
    """Runs: start, list, show, follow, cancel."""


@oa.group("request", cls=LazyGroup, module="runs.requests")
def request_group() -> None:
    """Requests: questions that runs ask people, and the answers."""


@oa.group("schedule", cls=LazyGroup, module="runs.schedules")
def schedule_group() -> None:
    """Schedules: runs that start by the clock."""


@oa.group("worker", cls=LazyGroup, module="local.workers")
def worker_group() -> None:
    """Workers: take runs and execute them."""


@oa.group("key", cls=LazyGroup, module="identity.api_keys")
def key_group() -> None:
    """API keys: how workers and scripts sign in."""


@oa.group("session", cls=LazyGroup, module="identity.sessions")
def session_group() -> None:
    """Sessions: where you are signed in."""


@oa.group("account", cls=LazyGroup, module="identity.deletion")
def account_group() -> None:
    """Your account: what goes with it, and its end."""


@oa.group("org", cls=LazyGroup, module="orgs.orgs")
def org_group() -> None:
    """Orgs: where people work together."""


@oa.group("member", cls=LazyGroup, module="orgs.members")
def member_group() -> None:
    """Members: the people in your org, and their roles."""


@oa.group("invitation", cls=LazyGroup, module="orgs.invitations")
def invitation_group() -> None:
    """Invitations: who may join an org."""


@oa.group("replay", cls=LazyGroup, module="runs.replays")
def replay_group() -> None:
    """Replays: finished runs as files that prove themselves."""


@oa.group("receipt", cls=LazyGroup, module="runs.receipts")
def receipt_group() -> None:
    """Receipts: show them and check them, also offline."""


@oa.group("audit", cls=LazyGroup, module="orgs.audit")
def audit_group() -> None:
    """The audit log: who did what in your org."""


@oa.group("admin", cls=LazyGroup, module="admin.installation", epilog="Example: oa admin user show ada@example.org")
def admin_group() -> None:
    """Operate an installation: its secrets, database, access, web routes and audit log."""


@admin_group.group("audit", cls=LazyGroup, module="admin.audit")
def admin_audit_group() -> None:
    """Audit events that belong to no org: actions of operators, requested codes, refused credentials."""


@admin_group.group("maintenance", cls=LazyGroup, module="admin.routes")
def maintenance_group() -> None:
    """Close the site, with a bypass for operators."""


@admin_group.group("keys", cls=LazyGroup, module="admin.keys")
def signing_keys_group() -> None:
    """The keys that sign tokens. OA_OPERATOR_TOKEN is the operator's token; a local stack has its own."""


@admin_group.group("policy", cls=LazyGroup, module="admin.policy")
def policy_group() -> None:
    """Who may do what. OA_OPERATOR_TOKEN is the operator's token; a local stack has its own."""


@admin_group.group("user", cls=LazyGroup, module="admin.users")
def user_group() -> None:
    """People and service accounts. OA_OPERATOR_TOKEN is the operator's token; a local stack has its own."""


@admin_group.group("session", cls=LazyGroup, module="admin.sessions")
def admin_session_group() -> None:
    """Where people are signed in. OA_OPERATOR_TOKEN is the operator's token; a local stack has its own."""


@admin_group.group("org", cls=LazyGroup, module="admin.orgs")
def admin_org_group() -> None:
    """All orgs of the installation. OA_OPERATOR_TOKEN is the operator's token; a local stack has its own."""


@admin_group.group("route", cls=LazyGroup, module="admin.routes")
def route_group() -> None:
    """Which side answers which paths: the web shell, or the legacy upstream."""
