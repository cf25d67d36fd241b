"""What the log says of an error that a background task survives."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived


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
