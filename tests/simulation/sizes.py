"""How large a schedule is. Most are short and dense: they find most defects, and find them sooner. Some are long."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONG_SHARE = 0.01
"""Of the schedules. What takes a long history, a burst or three clients, only these find."""


@dataclass(frozen=True)
class Size:
    """`steps` things happen in about `storm_s` seconds. `appends`: how many events one append may have. `json_share`
    of the clients speak JSON, half of them the readable form; these take most of the time of those that do. `weights`:
    how often what happens. `delays_s`: how long anything may take. `is_warm`: the storm begins when all clients are
    connected."""

    steps: int
    storm_s: float
    clients: int
    gateways: int
    appends: Sequence[int]
    json_share: float
    weights: Mapping[str, int]
    delays_s: Sequence[float]
    is_warm: bool


_WEIGHTS = {
    "append": 24,
    "cut": 8,
    "stall": 3,
    "restart_client": 3,
    "crash_client_at_work": 2,
    "lose_disk": 1,
    "suspend_client": 2,
    "leave_topic": 2,
    "crash_gateway": 3,
    "drain_gateway": 1,
    "source_down": 3,
    "source_up": 4,
    "crash_source": 2,
    "restore_log": 2,
    "replace_log": 1,
    "prune_log": 2,
    "control": 2,
    "revoke_session": 1,
    "revoke_tokens": 1,
}
_DENSE = {**_WEIGHTS, "append": 20, "cut": 6, "source_down": 2}


def size_of(rng: random.Random) -> Size:
    """What `rng` draws."""
    if rng.random() < LONG_SHARE:
        return Size(
            60, 20.0, rng.randint(1, 3), rng.choice([1, 2]), (1, 1, 3, 40), 0.5, _WEIGHTS, (0.002, 0.05, 0.5), False
        )
    steps = rng.randint(2, 6)
    return Size(
        steps=steps,
        storm_s=steps * rng.choice([0.005, 0.02, 0.3]),
        clients=rng.choice([1, 1, 1, 2]),
        gateways=rng.choice([1, 1, 1, 2]),
        appends=(1, 2, 5),
        json_share=0.06,
        weights=_DENSE,
        delays_s=(0.005, 0.02, 0.1),
        is_warm=rng.random() < 0.8,
    )
