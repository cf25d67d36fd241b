"""What collecting tests makes is no work for the garbage collector afterwards."""

import pytest

pytest_plugins = ["pytester"]


def test_what_was_collected_is_frozen_and_garbage_is_collected_while_tests_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import gc\nheld = []\ndef pytest_collectstart():\n    held.append(gc.isenabled())\n")
    pytester.makepyfile(
        "import gc, conftest\n"
        "def test_it():\n"
        "    assert conftest.held and not any(conftest.held)\n"
        "    assert gc.isenabled() and gc.get_freeze_count()\n"
    )
    pytester.runpytest_subprocess("-p", "oa_testing.suite.frozen").assert_outcomes(passed=1)
