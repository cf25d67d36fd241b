"""Limits of the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from oa_base.rate import Rate

BODIES_PER_CALL = 4
"""Maximum number of requests that may be arriving for each one that may be worked on."""


class CallClass(Enum):
    """What a call costs. The value is its name in a refusal."""

    READ = "reads"
    WRITE = "writes"
    MINT = "new tokens"
    PUBLIC = "calls without a valid token"
    """The caller is not known yet, so these are counted per network."""


@dataclass(frozen=True)
class EdgeLimits:
    """What one request and one caller may cost."""

    max_calls: int
    max_calls_of_one: int
    max_anonymous_calls: int
    max_anonymous_calls_of_network: int
    max_body_bytes: int
    body_timeout_s: float
    min_body_bytes_per_s: int
    call_timeout_s: float
    rates: Mapping[CallClass, Rate]
