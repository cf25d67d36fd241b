"""Where runs stand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a run's events stand, and whose it is. `floor`: as in RunRecord."""

    run_id: str
    user_id: str
    org_id: str
    latest_seq: int
    floor: int
