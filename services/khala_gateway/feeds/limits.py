"""Named limits of the feeds."""

from dataclasses import dataclass, field

from oa_khala.feed import FeedLimits


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Limits of all feeds together. Times in milliseconds."""

    feed: FeedLimits = field(default_factory=FeedLimits)
    slice_frames: int = 50
    slice_bytes: int = 64 * 1024
    # A feed without subscribers is kept so long, so that a reconnect finds its ring.
    linger_ms: int = 10_000
    # How long a subscriber waits for the source to carry its topic.
    carry_timeout_ms: int = 10_000
    page_frames: int = 500
    page_bytes: int = 256 * 1024
    # Pages that were read a moment ago are kept for those who want the same ones: so many bytes, so long.
    kept_pages_bytes: int = 16 << 20
    kept_pages_ms: int = 5_000
    # Holes that are repaired at the same time, from one source.
    concurrent_repairs: int = 16
    # Cursors that one source is asked about at the same time.
    concurrent_confirmations: int = 64
    # Snapshots that are read from one source at the same time.
    concurrent_snapshots: int = 8
    # Size of a list's snapshot in parts: what is older is left out. In one frame, a source gives 512 KiB.
    list_snapshot_bytes: int = 2 << 20
    # No snapshot is larger.
    snapshot_max_bytes: int = 6 << 20
    # Snapshots that were read a moment ago are kept for those who want the same ones: so many bytes, so long.
    kept_snapshots_bytes: int = 16 << 20
    kept_snapshots_ms: int = 5_000
    # How often each source is asked where its topics stand, so that a lost last frame doesn't stay lost.
    audit_interval_ms: int = 30_000
