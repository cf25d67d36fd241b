"""How much each member of a kind may have open."""

import pytest

from oa_base.crowd import Crowd
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
