"""A worker process with the exec adapter: OA_CONTROL_URL and OA_API_KEY in its environment; a signal drains it."""

from __future__ import annotations

import asyncio
import logging
import os

from oa_platform.process.signals import stop_signals
from oa_worker import ApiKeyTokens, ExecAdapter, Worker

_log = logging.getLogger("worker")


async def main() -> None:
    """Work until told to stop."""
    tokens = ApiKeyTokens(os.environ["OA_CONTROL_URL"], os.environ["OA_API_KEY"])
    worker = Worker("e2e", [ExecAdapter()], tokens, slots=4, notify=lambda notice: _log.info("%s", notice))
    with stop_signals(lambda number: worker.drain()):
        await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main())
