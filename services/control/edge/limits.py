"""Limits of the edge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EdgeLimits:
    """What one request may cost."""

    max_calls: int
    max_body_bytes: int
    body_timeout_s: float
    call_timeout_s: float
