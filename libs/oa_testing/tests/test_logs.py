"""A test that looks at every record is told nothing by what another test left behind."""

from __future__ import annotations

import gc
import logging

import pytest

from oa_testing.logs import logged, nothing_collected

_LEFT = "left.behind"


class _Left:
    """Is collected only by the garbage collector, and reports then."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        logging.getLogger(_LEFT).error("collected late")


def test_what_was_left_behind_reports_before_or_after_the_block(caplog: pytest.LogCaptureFixture) -> None:
    _Left()
    with nothing_collected():
        assert len(logged(caplog, _LEFT)) == 1
        _Left()
        _ = [[] for _ in range(100 * gc.get_threshold()[0])]
        assert len(logged(caplog, _LEFT)) == 1
    gc.collect()
    assert len(logged(caplog, _LEFT)) == 2
