"""Refusals as a client meets them."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
from oa_client.core.refusals import needs_sign_in, retry_after_ms


def test_a_reason_of_a_newer_server_is_a_defect_that_still_has_its_name() -> None:
    known = Refusal.received("rate_limited", "slowly")
    assert (known.reason, known.message) == ("rate_limited", "slowly")
    newer = Refusal.received("from_the_future", "what?")
    assert (newer.reason, newer.message) == ("internal", "from_the_future: what?")


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        *(("0", 0), ("7", 7_000), ("999999", 999_999_000)),
        *((wrong, 0) for wrong in ("", "-1", "1.5", " 7", "1000000", "\u0661", "Fri, 31 Dec 1999 23:59:59 GMT")),
    ],
)
def test_a_wait_is_a_number_of_seconds(header: str, wait_ms: int) -> None:
    assert retry_after_ms(header) == wait_ms


@pytest.mark.parametrize(("reason", "helps"), [("reauth_required", True), ("unavailable", False), ("not_found", False)])
def test_a_sign_in_helps_where_the_catalogue_says_so(reason: str, helps: bool) -> None:
    assert needs_sign_in(Refusal(reason, "")) is helps
