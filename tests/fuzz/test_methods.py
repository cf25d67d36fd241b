"""The fuzz suite knows every method of the contracts, and its mutations reach what there is in their requests."""

import pytest

from openagents.runtime.v1 import worker_service_pb2
from tests.fuzz.examples import EVENTS, EXAMPLES, FINISH
from tests.fuzz.methods import SERVERS, Target, all_targets
from tests.fuzz.mutate import mutations


def test_every_method_has_a_good_request() -> None:
    known = {target.path for target in all_targets()}
    assert set(EXAMPLES) == known, "write a good request for it in tests/fuzz/examples.py"
    assert len(known) >= 25
    assert {path.rpartition(".")[0] for path in known} == set(SERVERS)


def test_the_events_are_all_that_a_worker_may_append() -> None:
    kinds = {name for event in [*EVENTS, FINISH] for name in event}
    authority = {
        *("run_created", "run_started", "run_cancel_requested", "executor_lost", "attempt_failed"),
        *("input_received", "request_answered", "request_expired", "child_started", "child_finished"),
    }
    body = worker_service_pb2.AppendEventsRequest.DESCRIPTOR.fields_by_name["events"].message_type
    assert body is not None
    assert kinds == {field.name for field in body.fields} - authority


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_every_request_can_be_wrong(target: Target) -> None:
    """Also one without fields: an unknown field, and what isn't an object."""
    found = [str(mutation) for mutation in mutations(target.descriptor.input_type, {})]
    assert len(found) == len(set(found)) >= 5
