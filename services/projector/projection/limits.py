"""The bounds of the tail; `services.projector.config` documents them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """How much the tail takes and keeps at once, and how long its pauses are."""

    batch_events: int = 2000
    queue_batches: int = 16
    backoff_min_ms: int = 100
    backoff_max_ms: int = 5_000
    heads_interval_ms: int = 1_000
