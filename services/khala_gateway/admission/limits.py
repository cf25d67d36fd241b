"""Named limits of admission."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many may be here, and how fast they may come."""

    max_connections: int = 10_000
    # Handshakes: so many at once, and so many a second in the long run.
    handshake_burst: int = 500
    handshakes_per_s: int = 200
