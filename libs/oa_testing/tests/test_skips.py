"""What is skipped fails at the release gate, except for what depends on who runs it."""

import pytest

from oa_testing.suite.skips import NO_SKIPS

pytest_plugins = ["pytester"]

TESTS = """
import pytest
from oa_testing.suite.skips import as_root, as_user

@pytest.mark.skipif(True, reason="no buf here")
def test_of_a_mark(): pass

def test_of_a_call(): pytest.skip("no npm here")

@pytest.mark.xfail(reason="known")
def test_expected(): assert False

@as_root
def test_root(): pass

@as_user
def test_user(): pass
"""


@pytest.mark.parametrize(
    ("set_to", "outcomes"),
    [
        ("", {"passed": 1, "skipped": 3, "xfailed": 1}),
        ("1", {"passed": 1, "skipped": 1, "errors": 1, "failed": 1, "xfailed": 1}),
    ],
    ids=["everywhere", "at the gate"],
)
def test_a_skip_fails_at_the_gate(
    set_to: str, outcomes: dict[str, int], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NO_SKIPS, set_to)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.skips", "-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(**outcomes)
    if set_to:
        result.stdout.fnmatch_lines_random(["*NO_SKIPS is set: *no npm here", "*NO_SKIPS is set: *no buf here"])
