"""A session whose tests leave files in the folder for temporary files fails, and names them; nothing stays behind."""

from __future__ import annotations

import pytest

from oa_testing.suite.left_files import PREFIX
from oa_testing.temporary import SHARED

pytest_plugins = ["pytester"]

TESTS = """
import subprocess, sys, tempfile
from pathlib import Path

def test_python(tmp_path):
    with tempfile.TemporaryDirectory():
        pass
    {python}

def test_another_program():
    {program}
"""
MAKES = "tempfile.mkdtemp(prefix='forgotten-')"
STARTED = """subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkdtemp(prefix='other-')"], check=True)"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("python", "program", "left"),
    [("pass", "pass", []), (MAKES, "pass", ["forgotten-*"]), ("pass", STARTED, ["other-*"])],
    ids=["nothing", "a test", "a program"],
)
def test_what_is_left_fails_the_session(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    python: str,
    program: str,
    left: list[str],
) -> None:
    shared = pytester.mkdir("shared")
    monkeypatch.setenv(SHARED, str(shared))
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(shared))
    (shared / f"{PREFIX}{2**22 + 1}-killed").mkdir()
    pytester.makepyfile(TESTS.format(python=python, program=program))
    options = ["-p", "oa_testing.suite.left_files", "-p", "no:cacheprovider", "-n", str(workers)]
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if left else pytest.ExitCode.OK)
    if left:
        result.stdout.fnmatch_lines(["*left in the folder for temporary files*", *left])
    assert not list(shared.glob(f"{PREFIX}*"))
