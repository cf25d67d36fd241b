"""A worker process with the exec adapter: OA_CONTROL_URL, OA_API_KEY and OA_CA_FILE in its environment.

A signal drains it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from oa_platform.process.signals import stop_signals
from oa_worker import ApiKeyTokens, ExecAdapter, Worker

_log = logging.getLogger("worker")


async def main() -> None:
    """Work until told to stop."""
    ca_file = Path(os.environ["OA_CA_FILE"]) if os.environ.get("OA_CA_FILE") else None
    tokens = ApiKeyTokens(os.environ["OA_CONTROL_URL"], os.environ["OA_API_KEY"], ca_file=ca_file)
    worker = Worker(
        "e2e", [ExecAdapter()], tokens, slots=4, ca_file=ca_file, notify=lambda notice: _log.info("%s", notice)
    )
    with stop_signals(lambda number: worker.drain()):
        await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main())
