"""The connection to the server that carries live frames, if there is one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Gauge

from oa_platform.config.shared import FrameSettings
from oa_platform.process.lifecycle import Process
from oa_platform.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from oa_fanout.nats import NatsConnection

CONNECTED = Gauge(
    "oa_frames_connected",
    "1 while the server of OA_FRAMES_NATS_URL is connected, or if none is set.",
    registry=REGISTRY,
)
CONNECTED.set(1)
_log = structlog.get_logger(__name__)


def frames_connection(
    settings: FrameSettings, process: Process, changed: Callable[[str], None] = lambda _: None
) -> NatsConnection | None:
    """The connection, kept in the background of `process`; None without a server. `changed`: see NatsConnection.

    Raises Refusal(invalid_setting) for a URL that may not be used without TLS.
    """
    if not settings.nats_url:
        return None
    from oa_fanout.nats import NatsConnection  # loaded here, because few installations have one

    url, protection = settings.nats_url.reveal(), process.protection
    protection.check_url(url, "OA_FRAMES_NATS_URL", secure="tls")

    def told(why: str) -> None:
        _note(why)
        changed(why)

    connection = NatsConnection(url, random.random, told, lambda: protection.trust)
    process.background("frames connection", connection.run())
    return connection


def _note(why: str) -> None:
    CONNECTED.set(0 if why else 1)
    if why:
        _log.warning("frames_disconnected", why=why)
    else:
        _log.info("frames_connected")
