"""Calling a service that follows revocations, over a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime

import pytest
import pytest_asyncio

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.keys import generate_key
from oa_platform.auth.revocations import Revocation, Revocations
from oa_platform.config.loading import load
from oa_platform.config.parsers import Secret, target
from oa_platform.config.shared import GrpcClientSettings
from oa_platform.rpc.client import open_channel
from oa_testing.clock import FakeClock
from oa_testing.postgres import free_port
from openagents.runtime.v1 import event_pb2, run_service_pb2
from services.control.policy.domain import PERSON_SCOPES, StandingPrincipal
from services.control.tests.harness import CONTROL_TOKEN, LOOPBACK, SmallRuntime, small_runtime
from services.control.tokens.app import TokenIssuer
from services.control.tokens.door import JwtSigner
from services.control.upstreams.door import GrpcUpstreams

ADA = StandingPrincipal(PrincipalKind.USER, "usr_ada", "org_1", PERSON_SCOPES, "ses_1", standing=PERSON_SCOPES)
Ask = Callable[..., Awaitable[bytes]]


@pytest.fixture
def runtime() -> SmallRuntime:
    return SmallRuntime()


@pytest.fixture
def revocations(clock: FakeClock) -> Revocations:
    return Revocations(clock)


@pytest_asyncio.fixture
async def ask(runtime: SmallRuntime, revocations: Revocations, clock: FakeClock) -> AsyncIterator[Ask]:
    """Asks the service for Ada, whose standing was read at that time, or else a moment ago."""
    key, port = generate_key(), free_port((0,))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(small_runtime(port, key, runtime, clock, revocations))
        settings = load(GrpcClientSettings, {})
        channel = open_channel(target().parse(f"{LOOPBACK}:{port}"), settings, Secret(CONTROL_TOKEN))
        upstreams = GrpcUpstreams(
            {"runtime": await stack.enter_async_context(channel)}, TokenIssuer(JwtSigner(key)), clock
        )
        spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]))
        body = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec).SerializeToString()
        method = "openagents.runtime.v1.RunService/CreateRun"

        def asked(stood_at: datetime | None = None) -> Awaitable[bytes]:
            ada = replace(ADA, stood_at=stood_at or clock.now())
            return upstreams.forward("runtime", method, body, ada, 30.0)

        yield asked


async def test_who_left_and_came_back_is_not_held_up_by_a_token_of_before(
    ask: Ask, runtime: SmallRuntime, revocations: Revocations, clock: FakeClock
) -> None:
    await ask()
    await clock.advance(0.01)
    revoked = Revocation(subject="usr_ada", org_id="org_1", issued_before_s=clock.time())
    revocations.take([revoked], 1)
    await ask()
    await ask()
    assert len(runtime.callers) == 3


async def test_who_loses_the_org_while_a_call_is_on_its_way_is_not_let_in_with_another_token(
    ask: Ask, runtime: SmallRuntime, revocations: Revocations, clock: FakeClock
) -> None:
    stood_at = clock.now()
    await ask()
    await clock.advance(0.01)
    revocations.take([Revocation(subject="usr_ada", org_id="org_1", issued_before_s=clock.time())], 1)
    with pytest.raises(Refusal) as refused:
        await ask(stood_at)
    assert refused.value.reason == "unavailable", "a call that comes now is told what has changed"
    assert len(runtime.callers) == 1


async def test_a_service_that_takes_no_token_of_the_caller_is_asked_no_third_time(
    ask: Ask, runtime: SmallRuntime, revocations: Revocations
) -> None:
    revocations.take([Revocation(subject="usr_ada")], 1)
    with pytest.raises(Refusal) as refused:
        await ask()
    assert refused.value.reason == "unavailable", "the caller's own token is good: nothing is said of it"
    assert runtime.callers == []
