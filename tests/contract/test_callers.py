"""Every method says who may call it, in one way, and the local stack lets those in, and nobody more."""

from typing import Any

import pytest

from oa_platform.auth.authenticator import Need, policy_of
from oa_platform.config.callers import ACCEPTED
from openagents.common.v1 import options_pb2
from tests.fuzz.methods import Target, all_targets

OPTIONS: tuple[Any, ...] = (
    options_pb2.required_scope,
    options_pb2.any_principal,
    options_pb2.session_only,
    options_pb2.public,
    options_pb2.worker_token,
    options_pb2.callers,
)
FORWARDER = "control"


def _callers(target: Target) -> set[str]:
    """The services that the method needs; of a public one none in particular."""
    policy = policy_of(target.path)
    if policy.need is Need.PRINCIPAL:
        return set() if target.process == FORWARDER else {FORWARDER}
    return set(policy.callers or ())


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_a_method_is_opened_by_exactly_one_option(target: Target) -> None:
    options = target.descriptor.GetOptions().Extensions
    assert sum(bool(options[option]) for option in OPTIONS) == 1


@pytest.mark.parametrize("target", all_targets(), ids=str)
def test_who_may_call_is_a_service_that_the_process_accepts(target: Target) -> None:
    assert _callers(target) <= set(ACCEPTED[target.process])


@pytest.mark.parametrize("process", ["runtime", "projector"])
def test_a_process_accepts_nobody_who_may_call_nothing(process: str) -> None:
    assert set(ACCEPTED[process]) == set().union(*(_callers(one) for one in all_targets() if one.process == process))
