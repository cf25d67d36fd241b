"""A worker: takes runs and executes their commands. Run with `python -m apps.worker`.

SIGTERM drains it: it takes no further run, finishes those that it has, and ends. A person at a terminal uses
`oa worker start`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from oa_platform.process.first import silence_grpc

silence_grpc()

from apps.worker.settings import WorkerSettings  # noqa: E402
from oa_base.environment import api_key_file  # noqa: E402
from oa_base.refusal import Refusal  # noqa: E402
from oa_base.visible import LAYOUT, visible  # noqa: E402
from oa_platform.config.loading import load  # noqa: E402
from oa_platform.process.signals import stop_signals  # noqa: E402
from oa_platform.telemetry.logging import configure_logging  # noqa: E402
from oa_worker import ApiKeyTokens, ExecAdapter, Worker, WorkerLimits  # noqa: E402
from oa_worker.sdk.notices import Attached, Detached, Notice, RunLeft, RunTaken  # noqa: E402

_log = structlog.get_logger(__name__)
_OURS = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Variables that the image sets for this program. A command that is itself Python must not find our packages."""


def main(env: Mapping[str, str]) -> int:
    """Work until told to stop. Return 0, 1 when the site refuses this worker, or 2 for invalid settings."""
    try:
        settings = load(WorkerSettings, env)
    except Refusal as refusal:
        sys.stderr.write(f"worker: {visible(str(refusal), LAYOUT)}\n")
        return 2
    configure_logging(settings.log, "worker")
    try:
        asyncio.run(
            _work(settings, api_key_file(env), {name: value for name, value in env.items() if name not in _OURS})
        )
    except Refusal as refusal:
        _log.error("worker_refused", reason=refusal.reason, message=refusal.message)
        return 1
    return 0


async def _work(settings: WorkerSettings, key_file: Path | None, environment: Mapping[str, str]) -> None:
    proxy = settings.proxy.reveal() if settings.proxy else ""
    tokens = ApiKeyTokens(
        settings.control_url,
        settings.api_key.reveal(),
        proxy=proxy,
        ca_file=settings.ca_file,
        api_key_file=key_file,
    )
    name = settings.work.name or socket.gethostname() or "worker"
    adapter = ExecAdapter(environment=environment, allowed=settings.work.exec_env)
    worker = Worker(
        name,
        [adapter],
        tokens,
        slots=settings.work.slots,
        limits=WorkerLimits(drain_timeout_ms=settings.work.drain_s * 1000),
        proxy=proxy,
        ca_file=settings.ca_file,
        notify=_note,
    )

    def told(number: signal.Signals) -> None:
        _log.info("signal", signal=number.name)
        worker.drain()

    with stop_signals(told):
        await worker.run()
    _log.info("stopped")


def _note(notice: Notice) -> None:
    match notice:
        case Attached(worker_id=worker_id, runtime_address=address):
            _log.info("attached", worker_id=worker_id, runtime=address)
        case Detached(refusal=refusal, retry_in_ms=retry_in_ms):
            _log.warning("detached", reason=refusal.reason, message=refusal.message, retry_in_ms=retry_in_ms)
        case RunTaken(run_id=run_id, attempt=attempt):
            _log.info("run_taken", run_id=run_id, attempt=attempt)
        case RunLeft(run_id=run_id, finish=finish):
            _log.info("run_left", run_id=run_id, outcome="given up" if finish is None else finish.reason or "succeeded")


if __name__ == "__main__":
    sys.exit(main(os.environ))
