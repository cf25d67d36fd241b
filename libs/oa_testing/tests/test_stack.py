"""A stack of tests starts on a machine of any speed, unless a test is about its start."""

from pathlib import Path

import pytest

from oa_testing.stack import PATIENT_START, StackUnderTest
from oa_testing.waiting import PATIENCE_S


def test_its_start_has_the_time_that_a_slow_machine_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PATIENT_START:
        monkeypatch.delenv(name, raising=False)
    assert StackUnderTest(tmp_path).settings.ready_timeout_s == PATIENCE_S
    assert StackUnderTest(tmp_path, env={"OA_READY_TIMEOUT_S": "1"}).settings.ready_timeout_s == 1
