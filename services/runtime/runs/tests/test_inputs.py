"""Somebody says something to a run: it stands in the log once, and the worker that holds the run is told."""

from __future__ import annotations

from typing import Any

import pytest

from openagents.runtime.v1 import event_pb2, run_service_pb2, worker_service_pb2
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    finish,
    refusal_of_call,
)


async def agent_run(runtime: Replica, who: Somebody) -> str:
    """A run for the adapter `exec`, which the workers of the tests have, with an input of an agent."""
    spec = event_pb2.RunSpec(adapter="exec", agent=event_pb2.AgentSpec(input_json="{}"))
    request = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec)
    return str((await runtime.runs.CreateRun(request, metadata=who.as_person())).run.run_id)


def said(run_id: str, text: str = '"hello"', key: str = "i1") -> run_service_pb2.SendInputRequest:
    return run_service_pb2.SendInputRequest(run_id=run_id, idempotency_key=key, input_json=text)


async def send(runtime: Replica, who: Somebody, request: run_service_pb2.SendInputRequest) -> Any:
    return await runtime.runs.SendInput(request, metadata=who.as_person())


async def test_the_holder_is_told_and_reads_it(runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    early = await send(runtime, who, said(run_id, '{ "n": 1.50 }', "early"))
    worker = FakeWorker(runtime, who)
    await worker.attach()
    await worker.next("assignment")
    late = await send(runtime, who, said(run_id))
    notice = (await worker.next("news")).news
    assert (notice.run_id, notice.lease_epoch, notice.seq) == (run_id, 1, late.seq)
    request = worker_service_pb2.ReadHeldRunRequest(run_id=run_id, lease_epoch=1, types=["input.received"])
    answer = await runtime.workers.ReadHeldRun(request, metadata=who.as_worker())
    events = [event_pb2.RunEvent.FromString(data) for data in answer.events]
    assert [(event.seq, event.body.input_received.input_json) for event in events] == [
        (early.seq, '{ "n": 1.50 }'),
        (late.seq, '"hello"'),
    ]
    assert {event.body.input_received.sent_by for event in events} == {who.user_id}
    assert {event.lease_epoch for event in events} == {0}


async def test_one_key_says_it_once(runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    first = await send(runtime, who, said(run_id))
    again = await send(runtime, who, said(run_id))
    assert (first.seq, again.seq, first.already_sent, again.already_sent) == (2, 2, False, True)
    other = await refusal_of_call(runtime.runs.SendInput(said(run_id, '"bye"'), metadata=who.as_person()))
    assert (other.reason, other.field) == ("idempotency_conflict", "idempotency_key")
    assert (await send(runtime, who, said(run_id, '"bye"', "i2"))).seq == 3


async def test_a_workers_key_and_a_persons_do_not_meet(runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    worker = FakeWorker(runtime, who)
    await worker.attach()
    await worker.next("assignment")
    usage = event_pb2.EventBody(usage=event_pb2.Usage(input_tokens=1))
    assert (await worker.append(run_id, 1, "i1", usage)).first_seq == 3
    assert (await send(runtime, who, said(run_id))).seq == 4


async def test_a_run_that_ends_hears_nothing(runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    worker = FakeWorker(runtime, who)
    await worker.attach()
    await worker.next("assignment")
    request = run_service_pb2.CancelRunRequest(run_id=run_id)
    await runtime.runs.CancelRun(request, metadata=who.as_person())
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id), metadata=who.as_person()))
    assert refused.reason == "invalid_transition"
    await worker.next("cancel")
    await worker.append(run_id, 1, "end", finish(event_pb2.RUN_OUTCOME_CANCELED))
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id), metadata=who.as_person()))
    assert refused.reason == "invalid_transition"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "invalid_value"),
        ('{"a":1,"a":2}', "invalid_value"),
        ("1e999", "invalid_value"),
        ('"\\ud800"', "invalid_value"),
        ("", "missing_field"),
    ],
)
async def test_what_is_no_json_is_refused(text: str, reason: str, runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id, text), metadata=who.as_person()))
    assert (refused.reason, refused.field) == (reason, "input_json")


async def test_what_is_too_large_is_refused(runtime: Replica, who: Somebody) -> None:
    run_id = await agent_run(runtime, who)
    large = said(run_id, '"' + "x" * 196_608 + '"')
    refused = await refusal_of_call(runtime.runs.SendInput(large, metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("payload_too_large", "input_json")


async def command_run(runtime: Replica, who: Somebody) -> str:
    """A run of a command that reads what is said."""
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["cat"], stdin=True))
    request = run_service_pb2.CreateRunRequest(idempotency_key="c", spec=spec)
    return str((await runtime.runs.CreateRun(request, metadata=who.as_person())).run.run_id)


async def test_a_command_reads_what_its_spec_asks_for(runtime: Replica, who: Somebody) -> None:
    run_id = await command_run(runtime, who)
    assert (await send(runtime, who, said(run_id, '"a line"', "i1"))).seq == 2
    assert (await send(runtime, who, said(run_id, '{"base64":"AP8="}', "i2"))).seq == 3
    assert (await send(runtime, who, said(run_id, '{"end":true}', "i3"))).seq == 4


@pytest.mark.parametrize("text", ["17", "null", "[]", '{"say":"a"}', '{"base64":"?"}', '"\\ud800"', "{"])
async def test_what_says_nothing_to_a_standard_input_is_refused(text: str, runtime: Replica, who: Somebody) -> None:
    run_id = await command_run(runtime, who)
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id, text), metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("invalid_value", "input_json")


async def test_commands_hear_nothing_and_others_do_not_learn_of_the_run(runtime: Replica, who: Somebody) -> None:
    command = (await runtime.create(who, "c")).run_id
    refused = await refusal_of_call(runtime.runs.SendInput(said(command), metadata=who.as_person()))
    assert (refused.reason, refused.field) == ("invalid_value", "run_id")
    assert "oa run start --stdin" in refused.message
    stranger = Somebody(who.key)
    run_id = await agent_run(runtime, who)
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id), metadata=stranger.as_person()))
    assert refused.reason == "not_found"
    refused = await refusal_of_call(runtime.runs.SendInput(said(run_id), metadata=who.as_person("runs.read")))
    assert refused.reason == "missing_scope"
