"""Publishes a source's live frames to the server of `oa_platform.frames.connection`."""

from __future__ import annotations

from prometheus_client import Counter

from oa_platform.config.shared import FrameSettings
from oa_platform.frames.connection import frames_connection
from oa_platform.process.lifecycle import Process
from oa_platform.telemetry.metrics import REGISTRY
from oa_topics.publisher import FramePublisher

PUBLISHED = Counter("oa_frames_published", "Live frames handed to the server of OA_FRAMES_NATS_URL.", registry=REGISTRY)


def frame_publisher(
    settings: FrameSettings, process: Process, replica_id: str, pending_bytes: int
) -> FramePublisher | None:
    """The publisher, at work in the background of `process`; None without a server. Each replica has a subject to
    itself, and at most `pending_bytes` may wait. Raises as `frames_connection` does."""
    connection = frames_connection(settings, process)
    if connection is None:
        return None
    publisher = FramePublisher(connection, f"openagents.frames.{replica_id}", pending_bytes, PUBLISHED.inc)
    process.background("frames", publisher.run())
    return publisher
