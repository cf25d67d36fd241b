"""Agents over real gRPC: what workers say of them is kept, and inputs of new runs are held against it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import event_pb2, run_pb2, run_service_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from services.runtime.agents.domain import Agent, check_agents
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    finish,
    refusing,
)
from services.runtime.workers.app import workers

ASK = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}
GOOD = '{"question": "why"}'


def support(schema: Any = None, name: str = "support", **more: str) -> pb.Agent:
    return pb.Agent(name=name, input_schema_json="" if schema is None else json.dumps(schema), **more)


async def attached(runtime: Replica, who: Somebody, *agents: pb.Agent, worker_id: str = "") -> FakeWorker:
    worker = FakeWorker(runtime, who, worker_id, agents=agents)
    await worker.attach()
    return worker


async def create(runtime: Replica, who: Somebody, key: str, spec: event_pb2.RunSpec) -> run_pb2.Run:
    request = run_service_pb2.CreateRunRequest(idempotency_key=key, spec=spec)
    answer = await refusing(runtime.runs.CreateRun(request, metadata=who.as_person()))
    run: run_pb2.Run = answer.run
    return run


async def ask(runtime: Replica, who: Somebody, key: str, text: str, adapter: str = "support") -> run_pb2.Run:
    spec = event_pb2.RunSpec(adapter=adapter, agent=event_pb2.AgentSpec(input_json=text))
    return await create(runtime, who, key, spec)


async def refused(call: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value


async def test_an_agent_gets_its_input_to_the_letter_and_its_result_is_the_runs(
    runtime: Replica, who: Somebody
) -> None:
    worker = await attached(runtime, who, support(ASK))
    text = '{ "question" : "Größe?", "most": 1.50 }'
    run = await ask(runtime, who, "k", text)
    assert run.spec.title == "support"
    assigned = (await worker.next("assignment")).assignment.run
    assert assigned.spec.agent.input_json == text
    end = finish()
    end.run_finished.result_json = '{ "text":"1,50 m"}'
    await worker.append(run.run_id, 1, "end", end)
    assert (await runtime.run(who, run.run_id)).finish.result_json == '{ "text":"1,50 m"}'


async def test_an_input_that_no_worker_would_take_is_refused_at_the_door(runtime: Replica, who: Somebody) -> None:
    await attached(runtime, who, support(ASK))
    refusal = await refused(ask(runtime, who, "k", '{"question": 17}'))
    assert (refusal.reason, refusal.field) == ("invalid_value", "spec.agent.input_json")
    assert refusal.metadata["path"] == "$.question"
    assert "17" not in refusal.message
    prompt = event_pb2.RunSpec(adapter="support", prompt=event_pb2.PromptSpec(text="why"))
    assert (await refused(create(runtime, who, "p", prompt))).field == "spec.input"


async def test_with_no_worker_there_every_input_waits(runtime: Replica, who: Somebody) -> None:
    await attached(runtime, Somebody(who.key), support(ASK))  # of another org
    run = await ask(runtime, who, "k", "17")
    assert run.status == run_pb2.RUN_STATUS_CREATED
    worker = await attached(runtime, who, support(ASK))
    assert (await worker.next("assignment")).assignment.run.spec.agent.input_json == "17"
    assert (await refused(ask(runtime, who, "later", "17"))).reason == "invalid_value"
    await worker.write(pb.AttachRequest(goodbye=pb.WorkerGoodbye()))
    async with asyncio.timeout(60):
        while True:  # until the good-bye is stored
            try:
                await ask(runtime, who, "after", "17")
                break
            except Refusal as refusal:
                assert refusal.field == "spec.agent.input_json"  # noqa: PT017 - until it is taken
                await asyncio.sleep(0.05)


async def test_one_worker_that_states_no_schema_takes_anything(runtime: Replica, who: Somebody) -> None:
    await attached(runtime, who, support(ASK))
    await attached(runtime, who, support(None, description="takes anything"))
    await attached(runtime, who, support(ASK))
    await ask(runtime, who, "k", "17")


async def test_the_newest_workers_schema_counts_also_when_an_older_one_comes_back(
    runtime: Replica, who: Somebody
) -> None:
    older = await attached(runtime, who, support({"type": "integer"}))
    await ask(runtime, who, "old", "17")
    await attached(runtime, who, support(ASK))
    assert (await refused(ask(runtime, who, "new", "17"))).metadata["path"] == "$"
    await attached(runtime, who, support({"type": "integer"}), worker_id=older.worker_id)
    await ask(runtime, who, "good", GOOD)
    assert (await refused(ask(runtime, who, "new", "17"))).metadata["path"] == "$"


async def test_a_worker_that_comes_back_says_anew_what_it_takes(
    runtime: Replica, who: Somebody, runtime_database: Database
) -> None:
    worker = await attached(runtime, who, support(ASK, description="answers", output_schema_json='{"type": "string"}'))
    await attached(runtime, who, support({"type": "integer"}), worker_id=worker.worker_id)
    await ask(runtime, who, "k", "17")
    connection = await asyncpg.connect(runtime_database.owner)
    try:
        stored = await connection.fetchval("SELECT agents FROM runtime.workers WHERE worker_id = $1", worker.worker_id)
    finally:
        await connection.close()
    assert json.loads(stored) == {"support": {"input_schema": '{"type": "integer"}'}}


async def test_a_repetition_is_answered_as_the_first_time_whatever_workers_say_now(
    runtime: Replica, who: Somebody
) -> None:
    first = await ask(runtime, who, "k", "17")
    await attached(runtime, who, support(ASK))
    assert (await ask(runtime, who, "k", "17")).run_id == first.run_id
    assert (await refused(ask(runtime, who, "other", "17"))).reason == "invalid_value"


@pytest.mark.parametrize(
    ("agents", "field"),
    [
        ([support({"$ref": "https://example.org/schema"})], "attach.agents[0].input_schema_json"),
        ([support(), support(name="more", output_schema_json="[]")], "attach.agents[1].output_schema_json"),
        ([support(), support()], "attach.agents[1].name"),
        ([support(description="x" * 2001)], "attach.agents[0].description"),
        ([pb.Agent(name="big", input_schema_json='"' + "x" * 65_535 + '"')], "attach.agents[0].input_schema_json"),
    ],
)
async def test_what_a_worker_cant_mean_ends_its_stream(
    runtime: Replica, who: Somebody, agents: list[pb.Agent], field: str
) -> None:
    refusal = await refused(attached(runtime, who, *agents))
    assert (refusal.reason, refusal.field) == ("invalid_value", field)


async def test_an_agent_that_is_no_adapter_of_its_worker_is_refused(runtime: Replica, who: Somebody) -> None:
    call = runtime.workers.Attach(metadata=who.as_worker())
    hello = pb.WorkerHello(name="n", adapters=["exec"], max_concurrent_runs=1, agents=[support()])
    await call.write(pb.AttachRequest(attach=hello))
    assert (await refused(refusing(call.read()))).field == "attach.agents[0].name"


async def test_nobody_waits_while_the_schemas_of_a_worker_are_read(
    runtime: Replica, who: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, may_go_on = threading.Event(), threading.Event()

    def check(agents: Sequence[Agent], adapters: Sequence[str]) -> None:
        reading.set()
        assert may_go_on.wait(PATIENCE_S), "the event loop waits for this"
        check_agents(agents, adapters)

    monkeypatch.setattr(workers, "check_agents", check)
    attaching = asyncio.create_task(attached(runtime, who, support(ASK)))
    await asyncio.to_thread(reading.wait, PATIENCE_S)
    await ask(runtime, who, "k", "17")
    may_go_on.set()
    worker = await attaching
    assert (await worker.next("assignment")).assignment.run.spec.agent.input_json == "17"
