"""The contract says of each method whether making a call twice is the same as once; `rpc.repeats` relies on it."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.fuzz.methods import Target, all_targets

READS = ("Authorize", "Describe", "Get", "List", "Read", "Replay")
KEYED = {
    *("CreateRun", "CancelRun", "SendInput", "AnswerRequest", "ExpireRequest", "StartChild"),
    *("CreateSchedule", "PauseSchedule", "ResumeSchedule", "TriggerSchedule", "BackfillSchedule", "DeleteSchedule"),
}
"""They change something, and the second call finds it changed: by its key, or by its nature."""


def _level(name: str) -> MethodOptions.IdempotencyLevel.ValueType:
    if name.startswith(READS):
        return MethodOptions.NO_SIDE_EFFECTS
    return MethodOptions.IDEMPOTENT if name in KEYED else MethodOptions.IDEMPOTENCY_UNKNOWN


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_reads_are_safe_to_repeat_and_other_methods_only_where_it_is_known(target: Target) -> None:
    assert target.descriptor.GetOptions().idempotency_level == _level(target.descriptor.name)
