"""Long tests are begun first."""

import pytest

pytest_plugins = ["pytester"]


def test_modules_with_long_tests_come_first_and_stay_whole(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers =\n    long: takes long\n")
    pytester.makepyfile(
        test_a="def test_one(): pass",
        test_b="import pytest\ndef test_one(): pass\n@pytest.mark.long\ndef test_two(): pass",
        test_c="def test_one(): pass",
    )
    result = pytester.runpytest_subprocess("--collect-only", "-q", "-p", "oa_testing.suite.long_first")
    order = [line for line in result.outlines if "::" in line]
    assert order == ["test_b.py::test_one", "test_b.py::test_two", "test_a.py::test_one", "test_c.py::test_one"]
