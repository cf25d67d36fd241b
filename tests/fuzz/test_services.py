"""Every method of every process on its gRPC port, asked wrongly in every way that its descriptor knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_platform.auth.authenticator import AUTHORIZATION_KEY, PRINCIPAL_KEY, SERVICE_TOKEN_KEY, Need
from openagents.runtime.v1 import event_pb2, worker_service_pb2
from tests.fuzz.doors import CALLER, Metadata, Outcome
from tests.fuzz.examples import EXAMPLES
from tests.fuzz.fire import FOREIGN, Tally, foreign, fresh, under_fire
from tests.fuzz.methods import Target, all_targets
from tests.fuzz.mutate import Json, Mutation, mutations
from tests.fuzz.scene import Scene
from tests.fuzz.wire_mutate import UNKNOWN_FIELD, inside, nested_value, wire_mutations

pytestmark = pytest.mark.asyncio(loop_scope="module")

TARGETS = all_targets()
# Control's own port takes services other than itself, and only control speaks for people: nobody can call these there.
UNREACHABLE = [target for target in TARGETS if target.process == "control" and target.need is Need.PRINCIPAL]
REACHABLE = [target for target in TARGETS if target not in UNREACHABLE]
_MAX_MESSAGE = 8 << 20
_CLOSES = "openagents.control.v1.RouteService/StartMaintenance"
_STAYS = {
    "openagents.runtime.v1.WorkerService/Attach": "stale_epoch",
    "openagents.control.v1.RouteService/StartCanary": "invalid_value",  # this site has one side at most
    # One that the tests made before waits for its time.
    "openagents.control.v1.SigningKeyService/RotateSigningKey": "already_exists",
    "openagents.control.v1.InstallationOrgService/SetInstallationOrgOwner": "already_exists",  # its owner can act
    # No topic of runtime has a snapshot, and no run can be told from one that is not there.
    "openagents.sync.v1.TopicService/ReadSnapshot": "not_found",
}
"""What a good request of these may be refused for."""
_ATTACH = "openagents.runtime.v1.WorkerService/Attach"


async def _call(scene: Scene, target: Target, requests: Sequence[bytes]) -> Outcome:
    outcome = await scene.rpc.call(target, requests, scene.rpc.identity(target, scene.ann, scene.worker.token))
    if target.path == _CLOSES and outcome.refusal is None:
        await scene.opened()  # the tests go on
    return outcome


def _stream(target: Target, examples: Sequence[Json], index: int, data: bytes) -> list[bytes]:
    """The requests with `data` in the place of the example: alone, or on a stream behind the worker's hello."""
    hello = [target.request(examples[0]).SerializeToString()] if target.path == _ATTACH and index else []
    return [*hello, data]


def _mutations(target: Target, good: Json, index: int) -> list[Mutation]:
    """What protobuf can say of the mutations. A stream that doesn't begin with a hello is refused for that."""
    found = [one for one in mutations(target.descriptor.input_type, good) if not one.json_only]
    out_of_order = target.path == _ATTACH and index == 0
    return [one for one in found if not (out_of_order and one.field == "message")]


async def _send(
    scene: Scene, target: Target, examples: Sequence[Json], index: int, mutation: Mutation, tally: Tally
) -> None:
    body = fresh(mutation.body) if mutation.may_pass else mutation.body
    data = target.request(body).SerializeToString()
    tally.look_closer(mutation, await _call(scene, target, _stream(target, examples, index, data)))


@pytest.mark.parametrize("target", REACHABLE, ids=str)
async def test_messages(scene: Scene, target: Target) -> None:
    """Whatever is wrong is named, and harms nothing; then the good request is taken, with a field of tomorrow too, and
    on record if it changes something in control."""
    examples = await EXAMPLES[target.path](scene, target.process)
    found = [(index, one) for index, good in enumerate(examples) for one in _mutations(target, good, index)]
    async with under_fire(scene, target.process) as tally:
        for index, mutation in found:
            if not mutation.may_pass:
                await _send(scene, target, examples, index, mutation, tally)
    recorded = await scene.watch.recorded()
    async with under_fire(scene, target.process, moves=True) as tally:
        for index, mutation in found:
            if mutation.may_pass:
                await _send(scene, target, examples, index, mutation, tally)
    for index, good in enumerate(examples):
        data = target.request(good).SerializeToString() + UNKNOWN_FIELD
        outcome = await _call(scene, target, _stream(target, examples, index, data))
        stays = outcome.refusal is not None and outcome.refusal.reason == _STAYS.get(target.path)
        assert outcome.refusal is None or stays, outcome.refusal
    assert await scene.watch.recorded() > recorded or not target.is_recorded


@pytest.mark.parametrize("target", REACHABLE, ids=str)
async def test_bytes_that_are_no_message(scene: Scene, target: Target) -> None:
    examples = await EXAMPLES[target.path](scene, target.process)
    good = target.request(examples[-1]).SerializeToString()
    async with under_fire(scene, target.process) as tally:
        for mutation in wire_mutations(target.descriptor.input_type, good):
            requests = _stream(target, examples, len(examples) - 1, mutation.data)
            outcome = await _call(scene, target, requests)
            tally.look(mutation, outcome)
            assert outcome.refusal is not None
            assert outcome.refusal.reason == "malformed_message", mutation


@pytest.mark.parametrize("target", TARGETS, ids=str)
async def test_who_is_nobody_gets_nothing(scene: Scene, target: Target) -> None:
    """Without identity, with a wrong one, and with a right one of the wrong kind."""
    examples = await EXAMPLES[target.path](scene, target.process)
    data = target.request(examples[0]).SerializeToString()
    identities: list[Metadata] = [
        (),
        ((SERVICE_TOKEN_KEY, "nonsense"),),
        ((AUTHORIZATION_KEY, "Bearer nonsense"),),
        ((AUTHORIZATION_KEY, f"Bearer {scene.ann.access_token}"),),
        ((PRINCIPAL_KEY, "a.b.c"), (SERVICE_TOKEN_KEY, "nonsense")),
    ]
    if target.need is Need.PRINCIPAL:
        service = scene.rpc.service(target.process)
        identities += [service, (*service, (PRINCIPAL_KEY, "a.b.c")), (*service, (PRINCIPAL_KEY, scene.worker.token))]
    async with under_fire(scene, target.process) as tally:
        for metadata in identities:
            outcome = await scene.rpc.call(target, [data], metadata)
            tally.look([key for key, _ in metadata], outcome)
            assert outcome.status == "UNAUTHENTICATED"


@pytest.mark.parametrize("target", UNREACHABLE, ids=str)
async def test_nobody_speaks_for_people_at_controls_own_port(scene: Scene, target: Target) -> None:
    async with under_fire(scene, target.process) as tally:
        for data in (b"", b"\xff"):
            outcome = await _call(scene, target, [data])
            tally.look("for somebody", outcome)
            assert outcome.refusal is not None
            assert outcome.refusal.reason == "service_not_accepted"


@pytest.mark.parametrize(
    "target", [target for target in REACHABLE if target.need in (Need.PRINCIPAL, Need.WORKER)], ids=str
)
async def test_what_belongs_to_others(scene: Scene, target: Target) -> None:
    examples = await EXAMPLES[target.path](scene, target.process)
    async with under_fire(scene, target.process) as tally:
        for index, good in enumerate(examples):
            for pair in foreign(good, scene.foreign.__getitem__):
                outcomes = []
                for mutation in pair:
                    data = target.request(mutation.body).SerializeToString()
                    outcome = await _call(scene, target, _stream(target, examples, index, data))
                    outcomes.append(outcome)
                    if "held_leases" in mutation.what:  # beliefs are not claims: the worker is told that they are wrong
                        assert outcome.refusal is None, (mutation, outcome.refusal)
                        continue
                    tally.look(mutation, outcome)
                    assert outcome.refusal is not None
                    assert outcome.refusal.reason in FOREIGN, mutation
                tally.alike(pair[0], *outcomes)


@pytest.mark.parametrize("process", CALLER)
async def test_methods_that_do_not_exist(scene: Scene, process: str) -> None:
    """They ask for identity too, so that nobody learns what there is; and their names become no label of a metric."""
    known = next(target for target in TARGETS if not target.is_stream)
    async with under_fire(scene, process) as tally:
        for path in ("openagents.runtime.v1.RunService/NoSuch", "no.Such/Method", "x" * 2000, "//", "a/b/c"):
            target = replace(known, process=process, path=path)
            for metadata, reason in ((scene.rpc.service(process), "unknown_method"), ((), "service_not_accepted")):
                outcome = await scene.rpc.call(target, [b"\xff"], metadata)
                tally.look(path, outcome)
                assert outcome.refusal is not None
                assert outcome.refusal.reason == reason
    assert "NoSuch" not in await scene.watch.metrics(process)


@pytest.mark.parametrize("process", ["control", "runtime", "projector"])
async def test_messages_that_are_too_large(scene: Scene, process: str) -> None:
    target = next(one for one in REACHABLE if one.process == process and not one.is_stream)
    async with under_fire(scene, process) as tally:
        outcome = await _call(scene, target, [inside(1023, bytes(_MAX_MESSAGE))])
        tally.look("too large", outcome)
        assert outcome.refusal is not None
        assert outcome.refusal.reason == "request_too_large"


async def test_values_that_are_nested_too_deeply(scene: Scene) -> None:
    """Up to what every reader of protobuf takes they are stored, beyond they can't be read."""
    target = next(one for one in TARGETS if one.path.endswith("/AppendEvents"))
    lease = await scene.lease()
    body = worker_service_pb2.AppendEventsRequest.EVENTS_FIELD_NUMBER, event_pb2.EventBody.TOOL_RESULT_FIELD_NUMBER
    call = event_pb2.ToolResult(call_id="c").SerializeToString()
    async with under_fire(scene, "runtime", moves=True) as tally:
        for depth in (20, 45, 60, 200, 20_000):
            head = target.request({"run_id": lease.run_id, "lease_epoch": lease.epoch, "idempotency_key": f"d{depth}"})
            result = call + inside(event_pb2.ToolResult.RESULT_FIELD_NUMBER, nested_value(depth))
            data = head.SerializeToString() + inside(body[0], inside(body[1], result))
            outcome = await _call(scene, target, [data])
            tally.look(f"{depth} deep", outcome, may_pass=depth < 100)
            assert outcome.refusal is None or depth > 20, outcome.refusal


@settings(max_examples=200)
@given(target=st.sampled_from(REACHABLE), data=st.binary(max_size=200))
async def test_random_bytes_are_refused_or_taken(scene: Scene, target: Target, data: bytes) -> None:
    tally = Tally()
    tally.look(data.hex(), await _call(scene, target, [data]), may_pass=True)
    tally.settle()


async def test_the_projection_goes_on(scene: Scene) -> None:
    """After everything that was stored: nothing of it stopped those who read the log."""
    await scene.watch.settled()
    run_id = await scene.run(scene.ann)
    await scene.watch.settled()
    assert await scene.watch.fetchval("SELECT count(*) FROM projection.run_summaries WHERE run_id = $1", run_id) == 1
    assert "oa_projector_halted{" not in await scene.watch.metrics("projector")
