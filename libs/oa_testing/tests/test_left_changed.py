"""A module that leaves the process changed fails, and says what it has changed."""

from __future__ import annotations

import os

import pytest

from oa_testing.suite.left_changed import changed, state

pytest_plugins = ["pytester"]

_MODULE = """
import os, pytest

@pytest.fixture(scope="module")
def for_all_of_it():
    os.environ["OA_WHILE_IT_RUNS"] = "1"
    yield
    del os.environ["OA_WHILE_IT_RUNS"]

def test_one(for_all_of_it):
    pass

def test_two(for_all_of_it):
    if {leaves}:
        os.environ["OA_LEFT"] = "1"
"""


@pytest.mark.parametrize("leaves", [False, True])
def test_a_module_leaves_the_process_as_it_was(leaves: bool, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=_MODULE.format(leaves=leaves), test_next="def test_three(): pass")
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.left_changed", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=int(leaves))
    if leaves:
        result.stdout.fnmatch_lines(["a test of test_it.py has changed the environment and left it so"])


def test_what_is_put_back_has_not_changed() -> None:
    before = state()
    os.environ["OA_LEFT"] = "1"
    assert changed(before, state()) == ["the environment"]
    del os.environ["OA_LEFT"]
    assert changed(before, state()) == []
