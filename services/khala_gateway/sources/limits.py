"""Named limits of a source."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """Times in milliseconds."""

    replay_timeout_ms: int = 10_000
    # A read of history that takes this long is also made at another replica, where there is one; 0 for never.
    hedge_ms: int = 1_000
    # Maximum number of concurrent second reads.
    concurrent_hedges: int = 16
    # A stream that lasted this long was a good one: the next reconnection starts with the shortest pause.
    steady_ms: int = 5_000
    # A stream that has not been refused for this long has been accepted: an accepted stream says nothing by itself.
    settle_ms: int = 100
    # Interval between checks that each source delivers, and maximum wait for an answer. A source whose stream brings no
    # delivery checks is asked. It is known to be away after both.
    ask_interval_ms: int = 2_000
    answer_ms: int = 3_000
    # A stream that has stopped bringing delivery checks for this long brings nothing. They come every second.
    check_ms: int = 5_000
    # A source that has been silent for this long makes the gateway unready.
    gone_ms: int = 10_000
    # A source that can't be reached for this long is asked for the reason, and again after the same time.
    reach_ms: int = 3_000
