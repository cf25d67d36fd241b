"""A benchmark leaves the process on the cores that it had, and runs where it may not choose any."""

from __future__ import annotations

import os

import pytest

from benchmarks.measure import on_core

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to a core")


def test_a_process_is_on_one_core_for_the_block_alone() -> None:
    before = os.sched_getaffinity(0)
    with on_core(0):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_where_the_core_is_not_ours_it_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before, bind = os.sched_getaffinity(0), os.sched_setaffinity

    def others_only(pid: int, cores: set[int]) -> None:
        if set(cores) != before:
            raise OSError(22, "Invalid argument")
        bind(pid, cores)

    monkeypatch.setattr(os, "sched_setaffinity", others_only)
    with on_core(0):
        assert os.sched_getaffinity(0) == before
