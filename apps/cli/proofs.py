"""What receipts and replays share: which keys to trust, and the whole record of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass

from apps.cli.program import Cli
from apps.cli.replay_files import fetched_artifact
from oa_client.client import Client
from oa_client.cpython.site import FileCheckpoints, FilePins
from oa_client.follow.items import EventsArchived
from oa_client.follow.run_tail import RunTail
from oa_client.receipt_log import Logged, check_logged
from oa_client.store import WatermarkStore
from oa_errors import Refusal
from oa_errors.strict_text import read_base64
from oa_runlog.receipt import ReceiptFacts, SignedReceipt, key_id_of


@dataclass(frozen=True)
class ProvedRun:
    """A run that has ended, all of its events stored here, its receipt verified against every one of them."""

    client: Client
    store: WatermarkStore
    receipt: SignedReceipt
    facts: ReceiptFacts


@asynccontextmanager
async def proved_run(cli: Cli, run_id: str) -> AsyncIterator[ProvedRun]:
    """Get what is missing here of the run's events and check them all.

    Raises Refusal: `run_not_finished`, and the reasons of `oa_runlog.verify.verify_record`.
    """
    async with cli.site.client() as client:
        await client.commands.receipt(run_id)  # a run that goes on has none: say so, and don't wait for its end
        with closing(cli.site.store(client)) as store:
            async with aclosing(RunTail(client, store, run_id).items()) as items:
                async for _ in items:
                    pass
            receipt, facts = await client.verified_record(run_id, store)
            yield ProvedRun(client, store, receipt, facts)


async def proved_receipt(cli: Cli, run_id: str) -> tuple[SignedReceipt, ReceiptFacts]:
    """The receipt of a run, verified against every event: followed here, or of its artifact if they were archived."""
    try:
        async with proved_run(cli, run_id) as proved:
            return proved.receipt, proved.facts
    except EventsArchived:
        pass
    async with fetched_artifact(cli, run_id, None) as fetched:
        return fetched.replay.receipt, fetched.replay.facts


async def logged_receipt(cli: Cli, receipt: SignedReceipt, facts: ReceiptFacts) -> Logged:
    """Where a verified receipt is in the log of receipts. Raises what `oa_client.receipt_log.check_logged` does."""
    async with cli.site.client() as client:
        keys = await client.pinned_keys()
        return await check_logged(client.commands, FileCheckpoints(cli.site.folder), keys, receipt, facts)


def trusted_keys(cli: Cli, given: tuple[str, ...]) -> dict[str, bytes]:
    """The public keys given in base64, or those pinned for the site. Asks nobody.

    Raises Refusal `unknown_key` when there is none, `invalid_value` for what is no key.
    """
    if not given:
        pinned = FilePins(cli.site.folder).load()
        if not pinned:
            message = "No key is pinned for this site yet. Run `oa receipt keys`, or give --key."
            raise Refusal("unknown_key", message)
        return pinned
    try:
        keys = [read_base64(text) for text in given]
    except ValueError:
        raise Refusal("invalid_value", "A key is 32 bytes in base64.", field="--key") from None
    return {key_id_of(key): key for key in keys}
