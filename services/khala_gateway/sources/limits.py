"""Named limits of a source."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """Times in milliseconds."""

    replay_timeout_ms: int = 10_000
    # A read of history that takes so long is made a second time, at another replica where there is one; 0 for never.
    hedge_ms: int = 1_000
    # So many of them are made a second time at once.
    concurrent_hedges: int = 16
    # A stream that lasted so long was a good one: the next reconnection starts with the shortest pause.
    steady_ms: int = 5_000
    # A stream that has not been refused for so long has been accepted: an accepted one says nothing by itself.
    settle_ms: int = 100
    # So often it is looked whether each source delivers; one whose stream brings no delivery checks is asked, and may
    # take so long to answer. It is known to be away after both.
    ask_interval_ms: int = 2_000
    answer_ms: int = 3_000
    # A stream that brought delivery checks, and has brought none for so long, brings nothing. They come every second.
    check_ms: int = 5_000
    # A source that has shown nothing for so long makes the gateway unready.
    gone_ms: int = 10_000
    # A source that can't be reached for so long is asked for the reason; and again after as long.
    reach_ms: int = 3_000
