"""`oa replay save|fetch|verify|show`: a finished run as one file that proves itself (docs/protocol/replay.md)."""

from __future__ import annotations

from pathlib import Path

import click

from apps.cli.commands.runs.trusted_keys import key_option, trusted_keys
from apps.cli.exits import Exit
from apps.cli.following.ids import LATEST
from apps.cli.following.run_ids import is_run_id, may_be_run, meant_run
from apps.cli.following.tail import TailView
from apps.cli.program import Cli, command, raw_option, replay_group, run_id_argument
from oa_base.refusal import Refusal
from oa_client.core import wire
from oa_client.cpython.artifact_files import artifact_file_lines, fetched_artifact, write_artifact
from oa_client.follow.items import Seen
from oa_client.proofs.artifacts import is_of_another_past
from oa_khala.topics import run_events
from oa_runlog.proof.replay import artifact_lines, read_artifact
from oa_runlog.proof.verify import VerifiedReplay, verify_artifact

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@replay_group.command("save", epilog="Example: oa replay save latest run.oareplay")
@run_id_argument
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command
async def save(cli: Cli, run_id: str, file: Path) -> Exit:
    """Check a run that has ended, and write it with its receipt to FILE. Everybody gets the same bytes."""
    async with cli.site.following() as (client, store):
        run_id = await meant_run(client, cli.site.folder, run_id)
        proved = await client.proofs.followed_record(run_id, store)
        payloads = (element.payload for element in store.elements(run_events(run_id)))
        size = write_artifact(file, artifact_lines(proved.receipt, payloads))
    cli.output.say(f"{file}: {proved.facts.count} events, {size} bytes.")
    cli.output.document({"runId": run_id, "file": str(file), "events": proved.facts.count, "bytes": size})
    return Exit.OK


@replay_group.command("fetch", epilog="Example: oa replay fetch latest -o run.oareplay")
@click.option(
    "--output", "-o", "file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write."
)
@run_id_argument
@command
async def fetch(cli: Cli, run_id: str, file: Path) -> Exit:
    """Fetch the artifact of a run that has ended, archived or not, from the site, check it, and write it to a file."""
    async with cli.site.client() as client:
        run_id = await meant_run(client, cli.site.folder, run_id)
        async with fetched_artifact(client, run_id, file) as fetched:
            fetched.keep_as(file)
    cli.output.say(f"{file}: {fetched.replay.facts.count} events, {fetched.size_bytes} bytes, checked.")
    document = {"runId": run_id, "file": str(file), "events": fetched.replay.facts.count, "bytes": fetched.size_bytes}
    cli.output.document(document)
    return Exit.OK


@replay_group.command("verify", epilog="Example: oa replay verify run.oareplay")
@key_option
@click.option("--receipt", "receipt_file", type=_FILE, help="A receipt that you kept, which FILE must hold.")
@click.argument("file", type=_FILE)
@command
async def verify(cli: Cli, file: Path, receipt_file: Path | None, keys: tuple[str, ...]) -> Exit:
    """Check FILE offline: signature, order, chain, outcome and totals. It may be compressed (zstd)."""
    trusted = trusted_keys(cli, keys)
    verified = verify_artifact(artifact_file_lines(file), trusted)
    facts = verified.facts
    if receipt_file is not None:
        _check_kept(receipt_file, trusted, verified)
    cli.output.say(f"{facts.run_id} is proved: {facts.count} events, {facts.outcome.value}.", "green")
    cli.output.document({"verified": True, "runId": facts.run_id, "eventsChecked": facts.count})
    return Exit.OK


@replay_group.command("show", epilog="Example: oa replay show run.oareplay")
@key_option
@raw_option
@click.argument("run_or_file", metavar="RUN_ID|FILE", type=click.Path())
@command
async def show(cli: Cli, run_or_file: str, keys: tuple[str, ...], raw: bool) -> Exit:
    """Check a run on the site or in a file, then show it from its first event on.

    A file in this folder takes precedence over a run whose id only begins so.
    """
    cli.output.raw = raw
    if _is_meant_as_run(run_or_file):
        async with cli.site.client() as client:
            run_id = await meant_run(client, cli.site.folder, run_or_file)
            async with fetched_artifact(client, run_id) as fetched:
                _show(cli, fetched.path)
    else:
        _show_file(cli, Path(run_or_file), keys)
    return Exit.OK


def _is_meant_as_run(run_or_file: str) -> bool:
    if is_run_id(run_or_file) or run_or_file == LATEST:
        return True
    return may_be_run(run_or_file) and not Path(run_or_file).exists()


def _check_kept(receipt_file: Path, trusted: dict[str, bytes], verified: VerifiedReplay) -> None:
    kept = wire.receipt_of(receipt_file.read_bytes())
    if is_of_another_past(verified, kept, trusted):
        message = (
            "the file holds another receipt than you kept of this run: its past was rewritten; keep both as evidence"
        )
        raise Refusal("receipt_foreign", message, field="--receipt")


def _show_file(cli: Cli, file: Path, keys: tuple[str, ...]) -> None:
    if not file.is_file():
        raise click.UsageError(f"There is no file {file}, and it is no id of a run.")
    verify_artifact(artifact_file_lines(file), trusted_keys(cli, keys))
    _show(cli, file)


def _show(cli: Cli, file: Path) -> None:
    view = TailView(cli.output)
    for one in read_artifact(artifact_file_lines(file)):
        view.show(Seen(one.event, one.data, live=False))
        if cli.output.gone:
            return
