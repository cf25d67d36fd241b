"""What the log says of an error that a background task survives."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived, surviving
from oa_platform.telemetry.metrics import REGISTRY


def test_a_refusal_is_a_warning_and_a_defect_an_error_with_its_traceback() -> None:
    defect = KeyError("x")
    with capture_logs() as lines:
        log = structlog.get_logger()
        note_survived(log, "mail_not_seen", Refusal("unavailable", "the database is away; try again"), sweep="mails")
        note_survived(log, "mail_not_seen", defect)
    assert lines == [
        {"event": "mail_not_seen", "log_level": "warning", "reason": "unavailable", "sweep": "mails"},
        {"event": "mail_not_seen", "log_level": "error", "reason": "KeyError", "exc_info": defect},
    ]


def test_each_is_counted_under_its_event() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("oa_background_failures_total", {"event": "test_not_seen"}) or 0.0

    before = counted()
    note_survived(structlog.get_logger(), "test_not_seen", KeyError("x"))
    with surviving(structlog.get_logger(), "test_not_seen"):
        _fail(Refusal("unavailable", "the database is away; try again"))
    assert counted() == before + 2


def _fail(error: BaseException) -> None:
    raise error


def test_a_block_that_survives_logs_its_error_and_ends_nothing_else() -> None:
    with capture_logs() as lines, surviving(structlog.get_logger(), "mail_not_seen", sweep="mails"):
        _fail(Refusal("unavailable", "the database is away; try again"))
    assert lines == [{"event": "mail_not_seen", "log_level": "warning", "reason": "unavailable", "sweep": "mails"}]


def test_a_block_that_survives_errors_ends_when_it_is_canceled() -> None:
    with pytest.raises(asyncio.CancelledError), surviving(structlog.get_logger(), "mail_not_seen"):
        _fail(asyncio.CancelledError())
