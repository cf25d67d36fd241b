"""Limits of the route split, the canaries and the maintenance."""

from __future__ import annotations

from dataclasses import dataclass

MAX_GROUPS = 50
"""Maximum number of route groups."""
KEPT_VERSIONS = 1_000
"""Maximum number of versions of the groups that are kept; a rollback goes no further back."""
KEPT_CANARY_S = 90 * 86_400.0
"""How long a canary that has ended is kept."""
DEFAULT_HOLD_MS = 300_000
"""Minimum time of a canary's step, if none is given."""
DEFAULT_MIN_REQUESTS = 500
"""Minimum number of requests of each side before a step is judged, if no number is given."""
DEFAULT_RETRY_MS = 300_000
"""When people should try again during maintenance, if no time is given."""
DEFAULT_BYPASS_S = 3_600.0
"""How long a bypass is valid, if no time is given."""
MAX_ERROR_EXCESS = 0.01
"""A canary rolls back when the shell's share of 5xx is above the legacy side's by more than this."""
MAX_SLOWDOWN = 1.5
"""A canary rolls back when the shell's p95 is above the legacy side's by more than this factor."""
SLOW_FLOOR_MS = 64.0
"""A p95 of up to this is never too slow, whatever the factor, because nobody notices it."""

CHUNKS_PER_TURN = 32
"""Number of chunks of an answer of the legacy side that are passed on before other requests have their turn."""


@dataclass(frozen=True, kw_only=True)
class RouteLimits:
    """How replicas follow the decisions of operators."""

    look_interval_s: float = 1.0
    """Time between two checks of the database, in case the notification of a change was lost."""
    canary_interval_s: float = 1.0
    """Time between two judgments of a canary, and between two reports of a replica's measurements."""


@dataclass(frozen=True, kw_only=True)
class LegacyLimits:
    """Limits of requests to the legacy upstream."""

    max_requests: int
    max_requests_of_network: int
    max_body_bytes: int
    connect_timeout_s: float
    idle_timeout_s: float
