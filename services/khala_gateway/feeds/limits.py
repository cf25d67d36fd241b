"""Named limits of the feeds."""

from dataclasses import dataclass, field

from oa_khala.feed import FeedLimits


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Limits of all feeds together. Times in milliseconds."""

    feed: FeedLimits = field(default_factory=FeedLimits)
    slice_frames: int = 50
    slice_bytes: int = 64 * 1024
    # How long a feed without subscribers is kept, so that a reconnect finds its ring.
    linger_ms: int = 10_000
    # How long a subscriber waits for the source to carry its topic.
    carry_timeout_ms: int = 10_000
    page_frames: int = 500
    page_bytes: int = 256 * 1024
    # Maximum size and age of the pages that are kept for other clients that want the same ones.
    kept_pages_bytes: int = 16 << 20
    kept_pages_ms: int = 5_000
    # Maximum number of concurrent repairs of holes from one source.
    concurrent_repairs: int = 16
    # Maximum number of cursors that one source is asked about at the same time.
    concurrent_confirmations: int = 64
    # Maximum number of snapshots that are read from one source at the same time.
    concurrent_snapshots: int = 8
    # Maximum number of concurrent reads of pages of history from one source.
    concurrent_replays: int = 64
    # Maximum size of a list's snapshot in parts: older elements are left out. In one frame, a source gives 512 KiB.
    list_snapshot_bytes: int = 2 << 20
    # Maximum size of any snapshot.
    snapshot_max_bytes: int = 6 << 20
    # Maximum size and age of the snapshots that are kept for other clients that want the same ones.
    kept_snapshots_bytes: int = 16 << 20
    kept_snapshots_ms: int = 5_000
    # How often each source is asked where its topics stand, so that a lost last frame doesn't stay lost.
    audit_interval_ms: int = 30_000
