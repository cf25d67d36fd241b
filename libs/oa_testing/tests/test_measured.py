"""What a test measured is shown at the end, whether it passed or not."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("ends", ["pass", "raise AssertionError"])
def test_what_was_measured_is_shown(pytester: pytest.Pytester, ends: str) -> None:
    pytester.makepyfile(f"def test_it(record_property):\n    record_property('measured', 'p50 3 ms')\n    {ends}\n")
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.measured", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*= measured =*", "p50 3 ms"])
