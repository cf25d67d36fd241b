"""Give the log a new epoch: `python -m services.runtime.new_epoch --by WHO --reason WHY`, with the runtime's settings.

Every cursor of the old epoch becomes stale at all replicas at once, and everyone who follows the log starts over.
`runtime.log_epochs` records who did it, when and why. Receipts that were signed before remain valid, in the same log of
receipts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from oa_base.refusal import Refusal
from oa_base.visible import LAYOUT, visible
from oa_platform.config.loading import group, load
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.history import EpochCause, NewEpoch
from oa_platform.postgres.lineage import PostgresHistories
from oa_platform.postgres.pool import Postgres
from services.runtime.authority.app import new_epoch_name
from services.runtime.authority.store import PostgresHistory
from services.runtime.wiring import MIGRATIONS

SUMMARY = "Give the log a new epoch: every cursor of the old one becomes stale, at all replicas at once."
REFUSED = 2
MAX_TEXT = 1000
"""Maximum length of a reason, in characters."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The database that has the log."""

    database: DatabaseSettings = group(DatabaseSettings)


async def give(settings: DatabaseSettings, by: str, reason: str) -> dict[str, str]:
    """Give the log a new epoch; return the names of both epochs. Raises Refusal unavailable, migration_refused."""
    await check_schema(settings, "runtime", MIGRATIONS)
    async with (
        Postgres(settings, "runtime-new-epoch") as postgres,
        PostgresHistories(postgres, PostgresHistory).history() as history,
    ):
        before = await history.look(None)
        await history.settle(before, new_epoch_name(), NewEpoch(EpochCause.ORDERED, reason), by)
        return {"log_epoch": (await history.look(None)).epoch, "before": before.epoch}


def _text(value: str) -> str:
    text = value.strip()
    if not text or len(text) > MAX_TEXT or not text.isprintable():
        raise argparse.ArgumentTypeError(f"1 to {MAX_TEXT} printable characters")
    return text


def main(arguments: Sequence[str]) -> int:
    """Return 0 if the log has a new epoch, which is printed as JSON; 2 if it was refused one."""
    parser = argparse.ArgumentParser(prog="python -m services.runtime.new_epoch", description=SUMMARY)
    parser.add_argument("--by", required=True, type=_text, help="who wants it")
    parser.add_argument("--reason", required=True, type=_text, help="why: which backup was restored, for example")
    options = parser.parse_args(arguments)
    # Keep log lines out of the answer on standard output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        given = asyncio.run(give(load(Settings, os.environ).database, options.by, options.reason))
    except Refusal as refusal:
        sys.stderr.write(f"{visible(str(refusal), LAYOUT)}\n")
        return REFUSED
    sys.stdout.write(f"{json.dumps(given)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
