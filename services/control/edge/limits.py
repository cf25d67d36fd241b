"""Limits of the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oa_base.rate import Rate
from services.control.edge.rates import CallClass


@dataclass(frozen=True)
class EdgeLimits:
    """What one request may cost, and one caller."""

    max_calls: int
    max_calls_of_one: int
    max_anonymous_calls: int
    max_anonymous_calls_of_network: int
    max_body_bytes: int
    body_timeout_s: float
    min_body_bytes_per_s: int
    call_timeout_s: float
    rates: Mapping[CallClass, Rate]
