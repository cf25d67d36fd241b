"""Ids have one form; the system's clock moves."""

import re

import pytest

from oa_base.ids import ULID_PATTERN
from oa_platform.system.clock import SystemClock
from oa_platform.system.ids import new_id


def test_new_ids_have_the_form_and_differ() -> None:
    ids = {new_id("run") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(f"run_{ULID_PATTERN}", one) for one in ids)


@pytest.mark.parametrize("prefix", ["", "r", "RUN", "runs", "r_n", "rün"])
def test_a_prefix_has_three_small_letters(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        new_id(prefix)


async def test_the_clocks_agree_and_move() -> None:
    clock = SystemClock()
    before, wall = clock.monotonic(), clock.time()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009
    assert 0 <= clock.now().timestamp() - wall < 5
    assert abs(clock.now_ms() / 1000 - clock.time()) < 5
    assert clock.now().utcoffset() is not None
