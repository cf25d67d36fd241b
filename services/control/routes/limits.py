"""Limits of the route split, the canaries and the maintenance."""

from __future__ import annotations

from dataclasses import dataclass

MAX_GROUPS = 50
"""Maximum number of route groups."""
KEPT_VERSIONS = 1_000
"""So many versions of the groups are kept; a rollback goes no further back."""
KEPT_CANARY_S = 90 * 86_400.0
"""How long a canary that has ended is kept."""
DEFAULT_HOLD_MS = 300_000
"""Shortest time of a canary's step, where none is given."""
DEFAULT_MIN_REQUESTS = 500
"""Fewest requests of each side before a step is judged, where no number is given."""
DEFAULT_RETRY_MS = 300_000
"""When people should try again during maintenance, where no time is given."""
DEFAULT_BYPASS_S = 3_600.0
"""How long a bypass is good, where no time is given."""
MAX_ERROR_EXCESS = 0.01
"""A canary goes back when the shell's share of 5xx is above the legacy side's by more than this."""
MAX_SLOWDOWN = 1.5
"""A canary goes back when the shell's p95 is above the legacy side's by more than this factor."""
SLOW_FLOOR_MS = 64.0
"""Nobody notices an answer as quick as this, whatever the factor."""


@dataclass(frozen=True, kw_only=True)
class RouteLimits:
    """How replicas follow what operators decide."""

    look_interval_s: float = 1.0
    """Time between two looks at the database, should word of a change have got lost."""
    canary_interval_s: float = 1.0
    """Time between two judgements of a canary, and between two reports of what a replica has measured."""


@dataclass(frozen=True, kw_only=True)
class LegacyLimits:
    """What a request to the legacy upstream may cost."""

    max_requests: int
    max_requests_of_network: int
    max_body_bytes: int
    connect_timeout_s: float
    idle_timeout_s: float
