"""Notices that a worker gives to the function that watches it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from oa_base.refusal import Refusal
from openagents.runtime.v1.event_pb2 import RunFinished

_log = logging.getLogger("oa_worker")


@dataclass(frozen=True)
class Attached:
    """The worker is attached and takes runs."""

    worker_id: str
    runtime_address: str


@dataclass(frozen=True)
class Detached:
    """The stream broke; the worker tries again by itself."""

    refusal: Refusal
    retry_in_ms: int


@dataclass(frozen=True)
class RunTaken:
    """A run has begun here."""

    run_id: str
    attempt: int


@dataclass(frozen=True)
class RunLeft:
    """A run has ended here; `finish` is None when it is no longer ours."""

    run_id: str
    finish: RunFinished | None


Notice = Attached | Detached | RunTaken | RunLeft


def contained(notify: Callable[[Notice], None]) -> Callable[[Notice], None]:
    """Return a function that logs the failures of `notify`: a mere observer must not end the worker's runs."""

    def told(notice: Notice) -> None:
        try:
            notify(notice)
        except Exception:  # noqa: BLE001 - it is somebody else's function
            _log.exception("notify failed for %s", type(notice).__name__)

    return told
