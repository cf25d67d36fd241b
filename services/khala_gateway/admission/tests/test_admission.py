"""Which handshakes are let in."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_khala.server.admission import GRANTS_NOTHING, Grant
from services.khala_gateway.admission.app import Admission, LiveTokens
from services.khala_gateway.admission.domain import PATH, OriginPolicy, Pace
from services.khala_gateway.admission.limits import AdmissionLimits

OURS = "https://app.example.org"
HERE = "192.0.2.1"
NOW = 1_800_000_000_000


def made(**limits: int) -> Admission:
    return Admission(OriginPolicy({OURS}), AdmissionLimits(**limits), lambda: NOW)


def refused(
    admission: Admission, connections: int = 1, path: str = PATH, network: str = HERE, **headers: list[str]
) -> str:
    """Why a handshake is not let in; empty when it is."""
    try:
        admission.admit(connections, network, path, headers.get("origins", []), headers.get("authorizations", []))
    except Refusal as refusal:
        return refusal.reason
    return ""


def test_the_token_of_the_header_is_handed_on() -> None:
    assert made().admit(1, HERE, f"{PATH}?x=1", [OURS], ["Bearer abc"]) == "abc"
    assert made().admit(1, HERE, PATH, [], []) == ""


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


def test_a_flood_from_one_address_leaves_the_door_open_for_others() -> None:
    admission = made(handshake_burst=10, handshakes_per_s=1, handshake_burst_per_address=4)
    assert [refused(admission) for _ in range(100)] == [""] * 4 + ["rate_limited"] * 96
    assert [refused(admission, network="192.0.2.2") for _ in range(4)] == [""] * 4


def test_the_addresses_that_are_remembered_are_bounded_and_the_quiet_ones_go_first() -> None:
    pace = Pace(AdmissionLimits(addresses=3, handshake_burst_per_address=1))
    for network in ("a", "b", "c"):
        pace.take(network, NOW)
    for network in ("a", "d"):  # a, refused, came last but one
        with pytest.raises(Refusal) if network == "a" else nullcontext():
            pace.take(network, NOW)
    assert len(pace) == 3
    pace.take("b", NOW)  # forgotten
    with pytest.raises(Refusal, match="rate_limited"):
        pace.take("a", NOW)


def test_one_network_has_so_many_connections_and_no_more() -> None:
    admission = made(connections_per_address=2)
    for _ in range(2):
        assert refused(admission) == ""
        admission.came(HERE)
    assert refused(admission) == "rate_limited"
    assert refused(admission, network="192.0.2.2") == ""
    admission.went(HERE)
    assert refused(admission) == ""


class Nobody:
    def token_replayed(self) -> None:
        """Whoever came second has the token."""


def grant(jti: str, session_id: str, subject: str = "usr_1") -> Grant:
    return replace(GRANTS_NOTHING, jti=jti, session_id=session_id, subject=subject)


def test_a_key_that_many_machines_share_is_limited_as_its_principal_only() -> None:
    tokens = LiveTokens(AdmissionLimits(connections_per_session=1, connections_per_principal=2))
    key = "apk_01JD8V0000000000000000000A"
    holders = [(grant(f"t{number}", key), Nobody()) for number in range(2)]
    for each, holder in holders:
        tokens.check(each)
        tokens.claim(each, holder)
    with pytest.raises(Refusal, match="a principal has at most 2"):
        tokens.check(grant("t2", key))
    for each, holder in holders:
        tokens.release(each, holder)
    tokens.check(grant("t2", key))


def test_sessions_and_principals_have_so_many_connections_and_refreshes_count_for_nothing() -> None:
    tokens = LiveTokens(AdmissionLimits(connections_per_session=2, connections_per_principal=3))
    first, second = Nobody(), Nobody()
    tokens.claim(grant("1", "s1"), first)
    tokens.claim(grant("2", "s1"), second)
    with pytest.raises(Refusal, match="session has at most 2"):
        tokens.check(grant("3", "s1"))
    tokens.check(grant("2", "s1"))  # takes the place of the one that holds it
    tokens.release(grant("1", "s1"), first)
    tokens.claim(grant("4", "s1"), first)
    with pytest.raises(Refusal, match="rate_limited"):
        tokens.check(grant("3", "s1"))
    tokens.claim(grant("5", "s2"), Nobody())
    with pytest.raises(Refusal, match="principal has at most 3"):
        tokens.check(grant("6", "s3"))
    tokens.check(grant("6", "s3", "usr_2"))
    tokens.release(grant("2", "s1"), second)
    tokens.check(grant("6", "s1"))


def test_an_org_that_fills_the_gateway_leaves_room_for_other_orgs() -> None:
    tokens = LiveTokens(AdmissionLimits(max_connections=90))
    flood = [replace(grant(f"t{number}", "", f"sva_{number}"), org_id="org_flood") for number in range(81)]
    for each in flood[:80]:
        tokens.check(each)
        tokens.claim(each, Nobody())
    with pytest.raises(Refusal, match="overloaded"):
        tokens.check(flood[80])
    tokens.check(flood[0])  # takes the place of the one that holds it
    tokens.check(replace(grant("q", "", "usr_q"), org_id="org_quiet"))
    tokens.release(flood[0], Nobody())
    tokens.check(flood[80])
