"""Which handshakes are let in."""

import pytest

from oa_base.refusal import Refusal
from services.khala_gateway.admission.app import Admission
from services.khala_gateway.admission.domain import PATH, OriginPolicy
from services.khala_gateway.admission.limits import AdmissionLimits

OURS = "https://app.example.org"
NOW = 1_800_000_000_000


def made(**limits: int) -> Admission:
    return Admission(OriginPolicy({OURS}), AdmissionLimits(**limits), lambda: NOW)


def refused(admission: Admission, connections: int = 1, path: str = PATH, **headers: list[str]) -> str:
    """Why a handshake is not let in; empty when it is."""
    try:
        admission.admit(connections, path, headers.get("origins", []), headers.get("authorizations", []))
    except Refusal as refusal:
        return refusal.reason
    return ""


def test_the_token_of_the_header_is_handed_on() -> None:
    assert made().admit(1, f"{PATH}?x=1", [OURS], ["Bearer abc"]) == "abc"
    assert made().admit(1, PATH, [], []) == ""


@pytest.mark.parametrize("origins", [["https://evil.example"], [OURS, "https://evil.example"], ["null"], [""]])
def test_pages_of_other_origins_are_not_let_in(origins: list[str]) -> None:
    assert refused(made(), origins=origins) == "origin_not_allowed"


def test_a_header_that_came_twice_is_no_token() -> None:
    assert refused(made(), authorizations=["Bearer a", "Bearer b"]) == "invalid_authorization_scheme"


def test_past_its_limits_and_while_draining_nobody_is_let_in() -> None:
    admission = made(max_connections=2, handshake_burst=2, handshakes_per_s=1)
    assert refused(admission, connections=3) == "overloaded"
    assert [refused(admission, connections=2) for _ in range(3)] == ["", "", "overloaded"]
    admission.drain()
    assert refused(admission) == "draining"
    assert refused(admission, path="/") == "draining", "room is looked at first: it costs least"
