"""The objects that connections are built from and share."""

from collections.abc import Callable
from dataclasses import dataclass

from oa_khala.server.limits import SessionLimits
from oa_platform.auth.revocations import Revocations
from services.khala_gateway.admission.app import LiveTokens, SyncTokens
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.timer import Alarms
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots


@dataclass(frozen=True, slots=True)
class Dependencies:
    """`now_ms` is Unix time by a clock that never goes back; `jitter` returns uniform numbers in [0, 1)."""

    hub: FeedHub
    replays: ReplayReader
    confirmations: Confirmations
    snapshots: Snapshots
    tokens: SyncTokens
    live_tokens: LiveTokens
    revocations: Revocations
    flusher: Flusher
    alarms: Alarms
    heartbeats: Heartbeats
    limits: SessionLimits
    now_ms: Callable[[], int]
    jitter: Callable[[], float]
