"""`oa receipt show|verify|keys`."""

from __future__ import annotations

import base64
from pathlib import Path

import click

from apps.cli.commands.runs.trusted_keys import key_option, trusted_keys
from apps.cli.exits import Exit
from apps.cli.following.run_ids import meant_run
from apps.cli.output import Output
from apps.cli.program import Cli, command, receipt_group, run_id_argument
from oa_base.refusal import Refusal
from oa_client.core import wire
from oa_client.cpython.artifact_files import scratch
from oa_client.proofs.event_lines import read_event_lines
from oa_client.proofs.receipt_log import Logged
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt
from oa_runlog.proof.verify import verify_receipt, verify_record

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_VERIFY_EXAMPLES = """\
Example: oa receipt verify latest

Example: oa receipt verify --receipt receipt.json --events events.jsonl
"""


@receipt_group.command("show", epilog="Example: oa receipt show latest --json > receipt.json")
@run_id_argument
@command
async def show(cli: Cli, run_id: str) -> Exit:
    """Show the receipt of a run that has ended, and check its signature. With --json, print the receipt for a file."""
    async with cli.site.client() as client:
        receipt, facts = await client.proofs.receipt(await meant_run(client, cli.site.folder, run_id))
    cli.output.document(wire.receipt_document(receipt))
    show_receipt(cli.output, receipt, facts)
    return Exit.OK


@receipt_group.command(
    "verify",
    epilog=_VERIFY_EXAMPLES,
)
@click.option("--receipt", "receipt_file", type=_FILE, help="A receipt, from `oa receipt show --json`.")
@click.option("--events", "events_file", type=_FILE, help="The run's events, from `oa run tail --from-start --json`.")
@key_option
@click.option(
    "--log", "in_log", is_flag=True, help="Also check that it is in the log of receipts, and that the log only grew."
)
@click.argument("run_id", required=False)
@command
async def verify(
    cli: Cli,
    run_id: str | None,
    receipt_file: Path | None,
    events_file: Path | None,
    keys: tuple[str, ...],
    in_log: bool,
) -> Exit:
    """Check a receipt against the run's events and pinned keys: by RUN_ID, or offline from files."""
    if (run_id is None) == (receipt_file is None):
        raise click.UsageError("Give either RUN_ID, or --receipt FILE (and --events FILE).")
    if receipt_file is not None and in_log:
        raise click.UsageError("The log of receipts is asked about a RUN_ID; --receipt is checked offline.")
    logged: Logged | None = None
    if receipt_file is not None:
        facts, count = _verify_files(trusted_keys(cli, keys), receipt_file, events_file)
    else:
        async with cli.site.following() as (client, store):
            meant = await meant_run(client, cli.site.folder, str(run_id))
            proved = await client.proofs.whole_record(meant, store, scratch)
            logged = await client.proofs.logged(proved) if in_log else None
        facts, count = proved.facts, proved.facts.count
    checked = f"signature, {count} events, chain and outcome" if count else "signature only (no --events given)"
    cli.output.say(f"{facts.run_id} is proved: {checked}.", "green")
    document = {"verified": True, "runId": facts.run_id, "eventsChecked": count, "facts": facts.members()}
    if logged is not None:
        cli.output.say(_log_words(logged), "green")
        document["log"] = {"leafIndex": logged.leaf_index, "size": logged.now.size, "root": logged.now.root.hex()}
    cli.output.document(document)
    return Exit.OK


@receipt_group.command("keys", epilog="Example: oa receipt keys")
@click.option("--pin", is_flag=True, help="Forget the pinned keys and trust those that the site shows now.")
@command
async def list_keys(cli: Cli, pin: bool) -> Exit:
    """Show the keys that receipts are checked with. They are pinned on first use, and shown also while the site can't
    be reached.

    --pin also forgets the last checkpoint that was seen of the log of receipts.
    """
    keys = await (_trust_anew(cli) if pin else _known_keys(cli))
    rows = [[key_id, base64.b64encode(key).decode()] for key_id, key in keys.items()]
    cli.output.table(["key", "public key (base64)"], rows)
    cli.output.document({"keys": dict(rows)})
    return Exit.OK


async def _trust_anew(cli: Cli) -> dict[str, bytes]:
    async with cli.site.client() as client:
        return await client.proofs.trust_anew()


async def _known_keys(cli: Cli) -> dict[str, bytes]:
    """The keys that the site shows, if they are trusted; those that are pinned while it can't be reached."""
    try:
        async with cli.site.client() as client:
            return await client.proofs.keys()
    except Refusal as refusal:
        pinned = cli.site.pins.load()
        if refusal.reason != "unavailable" or not pinned:
            raise
        cli.output.note(f"The site can't be asked for newer keys ({refusal.message}). These are pinned:")
        return pinned


def _log_words(logged: Logged) -> str:
    grew = f", which continues the {logged.seen.size} seen before" if logged.seen else ""
    return f"It is receipt {logged.leaf_index + 1} of {logged.now.size} in the log of receipts{grew}."


def _verify_files(keys: dict[str, bytes], receipt_file: Path, events_file: Path | None) -> tuple[ReceiptFacts, int]:
    """Check with nothing but files and trusted keys."""
    receipt = wire.receipt_of(receipt_file.read_bytes())
    if events_file is None:
        return verify_receipt(receipt, keys), 0
    with events_file.open("rb") as lines:
        facts = verify_record(receipt, keys, read_event_lines(lines))
    return facts, facts.count


def show_receipt(output: Output, receipt: SignedReceipt, facts: ReceiptFacts) -> None:
    """Show a receipt to people."""
    rows = [
        ["run", facts.run_id],
        ["owner", f"{facts.user_id} in {facts.org_id}"],
        ["outcome", " ".join(part for part in (facts.outcome.value, facts.finish_reason) if part)],
        ["events", f"{facts.count} (seq {facts.first_seq} to {facts.last_seq})"],
        ["chain head", facts.chain_head],
        ["created", facts.create_time],
        ["finished", facts.finish_time],
        ["signed with", receipt.key_id],
        ["signature", base64.b64encode(receipt.signature).decode()[:44] + "…"],
    ]
    output.pairs(rows)
