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


def test_a_room_that_shares_its_work_is_one_workers(pytester: pytest.Pytester) -> None:
    for name in ("house/test_a", "house/test_b", "order/test_c"):
        module = pytester.path / "tests" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(
            "import os, pytest\n"
            "@pytest.mark.parametrize('n', range(3))\n"
            "def test_one(n): print(__file__, os.environ['PYTEST_XDIST_WORKER'])\n"
        )
    options = ("--import-mode=importlib", "-p", "oa_testing.suite.long_first", "-n", "2", "-rP")
    result = pytester.runpytest_subprocess(*options, "--dist", "loadfile", "--no-loadscope-reorder")
    result.assert_outcomes(passed=9)
    workers = {line.replace(str(pytester.path), "") for line in result.outlines if ".py gw" in line}
    assert len(workers) == 3, "a module has one worker"
    assert len({line.split()[1] for line in workers if "house" in line}) == 1
