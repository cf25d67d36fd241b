"""Every refusal that leaves a gRPC port is counted and logged, once: as the end of its call, or within a stream."""

from __future__ import annotations

import structlog

from oa_base.refusal import Refusal
from oa_platform.telemetry import metrics

_LOGGED_FIELD_CHARS = 200
_log = structlog.get_logger(__name__)


def note_refusal(method: str, refusal: Refusal) -> None:
    """Count and log a refusal of `method` ("/package.Service/Method"); a stream that goes on after it notes it too."""
    metrics.count_refusal(refusal.reason, "grpc")
    _log.info("call_refused", method=method, reason=refusal.reason, field=refusal.field[:_LOGGED_FIELD_CHARS])
