"""How much each member of a kind may have open."""

import pytest

from oa_base.crowd import OWN_PER_FREE, Crowd, Shares
from oa_base.refusal import Refusal


def test_who_is_gone_is_not_remembered() -> None:
    crowd = Crowd("session", 1)
    crowd.came("a")
    with pytest.raises(Refusal, match="rate_limited"):
        crowd.check("a")
    crowd.went("a")
    crowd.check("a")
    crowd.check("")
    assert len(crowd) == 0


def _fill(shares: Shares, one: str) -> int:
    taken = 0
    while shares.has_room(one):
        shares.came(one)
        taken += 1
    return taken


def test_who_floods_leaves_room_for_who_comes_after_it() -> None:
    shares = Shares(900)
    assert [_fill(shares, one) for one in ("a", "b", "c")] == [800, 89, 10]
    assert OWN_PER_FREE == 8
    assert _fill(shares, "") == 1, "who is nobody takes what is left"
    for _ in range(800):
        shares.went("a")
    assert (len(shares), _fill(shares, "d")) == (100, 712)


def test_few_places_can_all_be_taken_by_one_and_who_is_gone_is_forgotten() -> None:
    shares = Shares(OWN_PER_FREE)
    assert _fill(shares, "a") == OWN_PER_FREE
    for _ in range(OWN_PER_FREE):
        shares.went("a")
    assert (len(shares), len(shares._taken)) == (0, 0)
