"""Named limits of a session."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits of one connection. Times in milliseconds."""

    hello_deadline_ms: int = 5_000
    heartbeat_interval_ms: int = 25_000
    idle_timeout_ms: int = 60_000
    # How long a client may take none of the bytes that wait for it.
    slow_consumer_ms: int = 30_000
    max_topics: int = 128
    max_frame_bytes: int = 64 * 1024
    # Frames that may wait while a token is verified. The gateway reads no further ones.
    max_pipelined_frames: int = 16
    # Size of a part of a snapshot, for a client that takes parts.
    snapshot_part_bytes: int = 256 * 1024
    # Topics subscribed: at once, and per second in the long run.
    subscribe_burst: int = 256
    subscribe_per_s: int = 64
