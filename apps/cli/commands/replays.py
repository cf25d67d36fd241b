"""`oa replay save|verify|show`: a finished run as one file that proves itself (docs/protocol/replay.md)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli, command, replay_group
from apps.cli.proofs import proved_run, trusted_keys
from apps.cli.tail import Seen, TailView
from oa_khala.topics import run_events
from oa_runlog.replay import MAX_LINE_BYTES, artifact_lines, read_artifact, verify_artifact

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_option = click.option(
    "--key", "keys", multiple=True, metavar="BASE64", help="A public key to trust, in place of the pinned."
)


@replay_group.command("save")
@click.argument("run_id")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@command
async def save(cli: Cli, run_id: str, file: Path) -> Exit:
    """Write a run that has ended, with its receipt, into FILE: checked, and the same bytes for everybody."""
    async with proved_run(cli, run_id) as proved:
        payloads = (element.payload for element in proved.store.elements(run_events(run_id)))
        size = _write(file, artifact_lines(proved.receipt, payloads))
    cli.output.say(f"{file}: {proved.facts.count} events, {size} bytes.")
    cli.output.document({"run_id": run_id, "file": str(file), "events": proved.facts.count, "bytes": size})
    return Exit.OK


@replay_group.command("verify")
@_key_option
@click.argument("file", type=_FILE)
@command
async def verify(cli: Cli, file: Path, keys: tuple[str, ...]) -> Exit:
    """Check FILE offline: signature, order, chain, outcome and totals."""
    verified = verify_artifact(_lines(file), trusted_keys(cli, keys))
    facts = verified.facts
    cli.output.say(f"{facts.run_id} is proved: {facts.count} events, {facts.outcome.value}.", "green")
    cli.output.document({"verified": True, "run_id": facts.run_id, "events_checked": facts.count})
    return Exit.OK


@replay_group.command("show")
@_key_option
@click.argument("file", type=_FILE)
@command
async def show(cli: Cli, file: Path, keys: tuple[str, ...]) -> Exit:
    """Check FILE offline, then show the run from its first event on."""
    verify_artifact(_lines(file), trusted_keys(cli, keys))
    view = TailView(cli.output)
    for one in read_artifact(_lines(file)):
        view.show(Seen(one.event, one.data, live=False))
    return Exit.OK


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file with their ends; one that is too long comes in pieces, which no reader takes for lines."""
    with file.open("rb") as opened:
        while line := opened.readline(MAX_LINE_BYTES + 1):
            yield line


def _write(file: Path, lines: Iterable[bytes]) -> int:
    """Replace a file, whole or not at all; returns its size."""
    descriptor, staging = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as opened:
            size = sum(opened.write(line) for line in lines)
        Path(staging).replace(file)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise
    return size
