"""Full jitter: how long a client waits before it tries again."""

BACKOFF_BASE_MS = 250
BACKOFF_CAP_MS = 8_000
_MAX_DOUBLINGS = 16


def backoff_ms(attempt: int, jitter: float) -> int:
    """Milliseconds to wait before attempt number `attempt` (0 is the first); `jitter` is uniform in [0, 1).

    Uniform between 0 and the base doubled with each attempt up to the cap, so that clients that were cut off
    together don't come back together.
    """
    ceiling = min(BACKOFF_CAP_MS, BACKOFF_BASE_MS << min(attempt, _MAX_DOUBLINGS))
    return int(ceiling * jitter)
