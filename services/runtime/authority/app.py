"""The log's epoch as this replica knows it: see `oa_platform.postgres.lineage`."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from oa_platform.postgres import lineage
from oa_platform.postgres.history import EpochCause, NewEpoch
from oa_platform.system.ids import new_id
from oa_platform.telemetry.metrics import show_at_zero
from services.runtime.authority import metrics
from services.runtime.authority.domain import Head

_log = structlog.get_logger(__name__)

Heads = Mapping[int, Head]
"""Partition -> how far it goes."""
Lineage = lineage.Lineage[Heads]


def new_epoch_name() -> str:
    """A name that no other log has."""
    return new_id("log")


def log_lineage(histories: lineage.Histories[Heads], replica_id: str, interval_s: float) -> Lineage:
    """The log's lineage as one replica knows it."""
    show_at_zero(metrics.EPOCHS_GIVEN, (EpochCause.EVENTS_MISSING, EpochCause.HISTORY_UNKNOWN))
    return Lineage(histories, new_epoch_name, _Report(), replica_id, interval_s)


class _Report:
    """`lineage.Report`."""

    def given(self, new: NewEpoch, epoch: str, before: str) -> None:
        """See Report."""
        metrics.EPOCHS_GIVEN.labels(new.cause).inc()
        _log.error("log_epoch_given", cause=new.cause, detail=new.detail, log_epoch=epoch, before=before)

    def changed(self, epoch: str) -> None:
        """See Report."""
        _log.warning("log_epoch_changed", log_epoch=epoch)
