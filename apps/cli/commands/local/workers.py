"""`oa worker start`."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click

from apps.cli.exits import Exit
from apps.cli.following.no_worker import STARTED_BY_OA
from apps.cli.output import Output
from apps.cli.program import Cli, command, worker_group
from apps.cli.settings import running_stack
from apps.worker.work_settings import MAX_SLOTS
from oa_base.environment import api_key_file
from oa_base.refusal import Refusal
from oa_client.cpython.files import read_json, write_private_json
from oa_localstack.installation.state import read_state
from oa_platform.process.signals import stop_signals
from oa_worker import ApiKeyTokens, ExecAdapter, Worker, WorkerLimits
from oa_worker.adapters.codex.adapter import CodexAdapter, CodexSettings
from oa_worker.adapters.codex.inputs import Sandbox
from oa_worker.sdk.notices import Attached, Detached, Notice, RunLeft, RunTaken


@worker_group.command("start", epilog="Example: oa worker start --adapter exec --slots 2")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=click.Choice(STARTED_BY_OA),
    required=True,
    help="Adapter that the worker has.",
)
@click.option("--name", default=None, help="Name for people; by default OA_WORKER_NAME or this machine's.")
@click.option(
    "--slots",
    type=click.IntRange(1, MAX_SLOTS),
    default=None,
    help="Maximum number of runs at a time; by default OA_WORKER_SLOTS, or 4.",
)
@command
async def start(cli: Cli, adapters: tuple[str, ...], name: str | None, slots: int | None) -> Exit:
    """Take runs and execute them until Ctrl-C, then finish the current runs. A second Ctrl-C ends the worker at once.

    A worker of a local stack ends with the stack: after `oa down` it finishes its current runs, too. While a stack that
    was not stopped can't be reached, the worker waits.

    After Ctrl-C or SIGTERM, current runs have OA_WORKER_DRAIN_S (30 s) to finish; then other workers take them over.

    The worker signs in with OA_API_KEY, or with a key of its own, which it makes once, with your session, and keeps.

    The adapter `exec` runs commands. `codex` takes turns of Codex, which has to be installed and set up on this machine
    (docs/codex.md).
    """
    cli.output.serving = True
    name = name or cli.settings.work.name or socket.gethostname() or "worker"
    slots = slots or cli.settings.work.slots
    chosen = [_adapter(cli, adapter) for adapter in dict.fromkeys(adapters)]
    key_file = cli.site.folder / "worker-key.json"
    stored = cli.settings.api_key is None and key_file.exists()
    try:
        await _work(cli, name, chosen, slots, await _api_key(cli, key_file, name))
    except Refusal as refusal:
        if not (stored and refusal.reason == "invalid_api_key"):
            raise
        cli.output.note("The stored key is no longer good; making a new one.", "yellow")
        key_file.unlink()
        await _work(cli, name, chosen, slots, await _api_key(cli, key_file, name))
    return Exit.OK


def _adapter(cli: Cli, name: str) -> ExecAdapter | CodexAdapter:
    if name == "exec":
        return ExecAdapter(environment=cli.env, allowed=cli.settings.work.exec_env)
    program = cli.settings.codex_program
    if shutil.which(program) is None:  # every run would fail
        message = f"there is no program {program!r} here; install Codex, or name it"
        raise Refusal("invalid_setting", message, field="OA_CODEX_PROGRAM")
    return CodexAdapter(CodexSettings(program, cast("Sandbox", cli.settings.codex_sandbox), dict(cli.env)))


async def _api_key(cli: Cli, key_file: Path, name: str) -> str:
    """Return the key that is set, or else the stored one, or else a new one."""
    if cli.settings.api_key is not None:
        return cli.settings.api_key.reveal()
    known = read_json(key_file)
    if known is not None and isinstance(known.get("api_key"), str):
        return str(known["api_key"])
    async with cli.site.client() as client:
        account = await client.commands.create_service_account(f"worker {name}"[:100])
    write_private_json(key_file, {"service_account_id": account.service_account_id, "api_key": account.api_key})
    cli.output.note(f"Made the service account {account.service_account_id}; its key is kept in {key_file}.")
    return account.api_key


async def _work(cli: Cli, name: str, adapters: list[ExecAdapter | CodexAdapter], slots: int, api_key: str) -> None:
    proxy = cli.settings.proxy.reveal() if cli.settings.proxy else ""
    tokens = ApiKeyTokens(
        cli.site.control_url,
        api_key,
        proxy=proxy,
        ca_file=cli.settings.ca_file,
        api_key_file=api_key_file(cli.env) if cli.settings.api_key is not None else None,
    )
    view = _View(cli.output)
    stopped = _local_stack_stopped(cli)

    def notify(notice: Notice) -> None:
        view.show(notice)
        if isinstance(notice, Detached) and stopped():
            worker.drain()

    worker = Worker(
        name,
        adapters,
        tokens,
        slots=slots,
        limits=WorkerLimits(drain_timeout_ms=cli.settings.work.drain_s * 1000),
        agents=[adapter.agent for adapter in adapters if isinstance(adapter, CodexAdapter)],
        proxy=proxy,
        ca_file=cli.settings.ca_file,
        notify=notify,
    )

    def told(number: signal.Signals) -> None:
        worker.drain()
        cli.output.note("Finishing what is at hand; once more stops at once.")

    with stop_signals(told):
        await worker.run()
    cli.output.note("Stopped.")


def _local_stack_stopped(cli: Cli) -> Callable[[], bool]:
    """Return a function that tells whether the worker's local stack was stopped on purpose, and says so once.

    A stack that crashed leaves its state behind, and the worker waits for it.
    """
    stack = running_stack(cli.settings)
    ours = stack is not None and stack.urls.get("control", "").rstrip("/") == cli.site.control_url
    told = False

    def stopped() -> bool:
        nonlocal told
        gone = ours and read_state(cli.settings.home.absolute()) is None
        if gone and not told:
            told = True
            cli.output.note("The stack was stopped, and its worker ends with it.")
        return gone

    return stopped


class _View:
    """Says what happens to a worker. It says once that there is no connection, however often the worker tries."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._attached: bool | None = None

    def show(self, notice: Notice) -> None:
        """Say what happened."""
        say, document = self._output.say, self._output.document
        match notice:
            case Attached(worker_id=worker_id, runtime_address=address):
                if not self._attached:
                    say(f"attached as {worker_id} at {address}")
                self._attached = True
                document({"attached": worker_id, "runtime": address})
            case Detached(refusal=refusal, retry_in_ms=retry_in_ms):
                if self._attached is not False:
                    say(f"not attached: {refusal}; trying until it is", "yellow")
                self._attached = False
                document({"detached": refusal.reason, "message": refusal.message, "retryInMs": retry_in_ms})
            case RunTaken(run_id=run_id, attempt=attempt):
                say(f"{run_id} taken" + (f", attempt {attempt}" if attempt > 1 else ""))
                document({"taken": run_id, "attempt": attempt})
            case RunLeft(run_id=run_id, finish=finish):
                reason = "given up" if finish is None else finish.reason or "succeeded"
                say(f"{run_id} {reason}")
                document({"left": run_id, "reason": reason})
