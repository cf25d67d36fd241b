"""The journal's epoch as this replica knows it: see `oa_platform.postgres.lineage`."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from oa_platform.postgres import lineage
from oa_platform.postgres.history import EpochCause, NewEpoch
from oa_platform.system.ids import new_id
from oa_platform.telemetry.metrics import show_at_zero
from services.projector.journal.app import Publication
from services.projector.lineage import metrics
from services.projector.lineage.domain import Followed

_log = structlog.get_logger(__name__)

Lineage = lineage.Lineage[Followed]


def journal_lineage(histories: lineage.Histories[Followed], replica_id: str, interval_s: float) -> Lineage:
    """The journal's lineage as one replica knows it."""
    show_at_zero(metrics.EPOCHS_GIVEN, (EpochCause.EVENTS_MISSING, EpochCause.HISTORY_UNKNOWN))
    return Lineage(histories, lambda: new_id("jrn"), _Report(), replica_id, interval_s)


def follow(one: Lineage, publication: Publication) -> None:
    """Hold the server to what `publication` has written, and to every checkpoint that a look has found."""
    found: Mapping[str, int] = {}

    def saw(now: Followed) -> None:
        nonlocal found
        found = now.positions

    one.follow(lambda: Followed(found, publication.newest), saw)
    one.on_change(lambda _: publication.restart())


class _Report:
    """`lineage.Report`."""

    def given(self, new: NewEpoch, epoch: str, before: str) -> None:
        """See Report."""
        metrics.EPOCHS_GIVEN.labels(new.cause).inc()
        _log.error("journal_epoch_given", cause=new.cause, detail=new.detail, journal_epoch=epoch, before=before)

    def changed(self, epoch: str) -> None:
        """See Report."""
        _log.warning("journal_epoch_changed", journal_epoch=epoch)
