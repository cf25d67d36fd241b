"""Requests over real gRPC: who may answer what, and that there is one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1 import run_service_pb2, worker_service_pb2
from services.runtime.config import RequestSettings
from services.runtime.tests.rig import (
    FakeWorker,
    Replica,
    Somebody,
    finish,
    refusal_of_call,
    replica,
    runtime_settings,
)

APPROVAL = pb.RequestOpened(
    request_id="r1", kind=pb.REQUEST_KIND_APPROVAL, title="Order?", detail="for 12.50", default_option="no"
)
CHOICE = pb.RequestOpened(
    request_id="r2", kind=pb.REQUEST_KIND_CHOICE, title="How?", options=[pb.RequestOption(id="air", label="By air")]
)
TEXT = pb.RequestOpened(request_id="r3", kind=pb.REQUEST_KIND_TEXT, title="Why?")


async def asking(runtime: Replica, who: Somebody) -> tuple[FakeWorker, str]:
    """A run that has asked three things, and its worker."""
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id = (await runtime.create(who)).run_id
    await worker.next("assignment")
    bodies = [pb.EventBody(request_opened=one) for one in (APPROVAL, CHOICE, TEXT)]
    await worker.append(run_id, 1, "asked", *bodies)
    return worker, run_id


def answer(runtime: Replica, who: Somebody, run_id: str, request_id: str, option: str = "", text: str = "") -> Any:
    request = run_service_pb2.AnswerRequestRequest(run_id=run_id, request_id=request_id, option=option, text=text)
    return runtime.runs.AnswerRequest(request, metadata=who.as_person())


def expire(runtime: Replica, who: Somebody, run_id: str, request_id: str, epoch: int = 1) -> Any:
    request = worker_service_pb2.ExpireRequestRequest(run_id=run_id, lease_epoch=epoch, request_id=request_id)
    return runtime.workers.ExpireRequest(request, metadata=who.as_worker())


async def listed(runtime: Replica, who: Somebody, run_id: str) -> list[Any]:
    request = run_service_pb2.ListRequestsRequest(run_id=run_id)
    return list((await runtime.runs.ListRequests(request, metadata=who.as_person())).requests)


async def test_an_answer_is_told_to_the_worker_and_stands_in_the_list(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await asking(runtime, who)
    assert [one.WhichOneof("settled") for one in await listed(runtime, who, run_id)] == [None, None, None]
    said = await answer(runtime, who, run_id, "r1", "yes")
    notice = (await worker.next("news")).news
    assert (notice.run_id, notice.seq) == (run_id, said.seq)
    await answer(runtime, who, run_id, "r2", "air")
    await answer(runtime, who, run_id, "r3", text="because")
    one, two, three = await listed(runtime, who, run_id)
    assert (one.opened, one.answered.option, one.answered.answered_by) == (APPROVAL, "yes", who.user_id)
    assert (two.answered.option, three.answered.text) == ("air", "because")


async def test_the_first_answer_counts(runtime: Replica, who: Somebody) -> None:
    _, run_id = await asking(runtime, who)
    answers = await asyncio.gather(
        *(answer(runtime, who, run_id, "r1", option) for option in ("yes", "no", "yes", "no")), return_exceptions=True
    )
    stored = [one for one in answers if not isinstance(one, BaseException)]
    assert sorted(one.already_answered for one in stored) == [False, True], "its repetition is no other answer"
    other = "no" if (await listed(runtime, who, run_id))[0].answered.option == "yes" else "yes"
    refused = await refusal_of_call(answer(runtime, who, run_id, "r1", other))
    assert (refused.reason, refused.metadata) == ("request_settled", {"seq": str(stored[0].seq)})


async def test_an_answer_that_is_sent_again_after_the_run_gets_what_it_got(runtime: Replica, who: Somebody) -> None:
    """Its first response may have been lost, and the run may have ended because of it."""
    worker, run_id = await asking(runtime, who)
    said = await answer(runtime, who, run_id, "r1", "yes")
    await worker.append(run_id, 1, "end", finish(pb.RUN_OUTCOME_SUCCEEDED))
    again = await answer(runtime, who, run_id, "r1", "yes")
    assert (again.seq, again.already_answered) == (said.seq, True)
    assert (await refusal_of_call(answer(runtime, who, run_id, "r1", "no"))).reason == "request_settled"
    assert (await refusal_of_call(answer(runtime, who, run_id, "r4", "yes"))).reason == "invalid_transition"


async def test_time_that_is_over_and_an_answer_exclude_each_other(runtime: Replica, who: Somebody) -> None:
    _, run_id = await asking(runtime, who)
    over = await expire(runtime, who, run_id, "r1")
    assert (await expire(runtime, who, run_id, "r1")).seq == over.seq
    refused = await refusal_of_call(answer(runtime, who, run_id, "r1", "yes"))
    assert refused.reason == "request_settled"
    said = await answer(runtime, who, run_id, "r2", "air")
    assert (await expire(runtime, who, run_id, "r2")).seq == said.seq
    one, two, _ = await listed(runtime, who, run_id)
    assert (one.expired.option, two.answered.option) == ("no", "air")


@pytest.mark.parametrize(
    ("request_id", "option", "text", "reason", "field"),
    [
        ("r1", "maybe", "", "invalid_value", "option"),
        ("r1", "", "", "invalid_value", "option"),
        ("r1", "yes", "really", "invalid_value", "text"),
        ("r2", "sea", "", "invalid_value", "option"),
        ("r3", "", "", "invalid_value", "text"),
        ("r3", "yes", "", "invalid_value", "text"),
        ("r4", "yes", "", "not_found", "request_id"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    request_id: str, option: str, text: str, reason: str, field: str, runtime: Replica, who: Somebody
) -> None:
    _, run_id = await asking(runtime, who)
    refused = await refusal_of_call(answer(runtime, who, run_id, request_id, option, text))
    assert (refused.reason, refused.field) == (reason, field)
    assert all(one.WhichOneof("settled") is None for one in await listed(runtime, who, run_id))


async def test_others_learn_nothing_and_an_ended_run_asks_nothing(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await asking(runtime, who)
    stranger = Somebody(who.key)
    for call in (answer(runtime, stranger, run_id, "r1", "yes"), expire(runtime, stranger, run_id, "r1")):
        assert (await refusal_of_call(call)).reason == "not_found"
    request = run_service_pb2.ListRequestsRequest(run_id=run_id)
    call = runtime.runs.ListRequests(request, metadata=stranger.as_person())
    assert (await refusal_of_call(call)).reason == "not_found"
    assert (await refusal_of_call(expire(runtime, who, run_id, "r1", epoch=2))).reason == "stale_epoch"
    await worker.append(run_id, 1, "end", finish(pb.RUN_OUTCOME_SUCCEEDED))
    assert (await refusal_of_call(answer(runtime, who, run_id, "r1", "yes"))).reason == "invalid_transition"
    assert (await refusal_of_call(expire(runtime, who, run_id, "r1"))).reason == "stale_epoch"


@pytest.mark.parametrize(
    "wrong",
    [
        pb.RequestOpened(request_id="r1", kind=pb.REQUEST_KIND_APPROVAL, title="?", default_option="yes"),
        pb.RequestOpened(request_id="r1", kind=pb.REQUEST_KIND_CHOICE, title="?"),
        pb.RequestOpened(request_id="r1", kind=pb.REQUEST_KIND_TEXT, title="?", options=[pb.RequestOption(id="a")]),
        pb.RequestOpened(
            request_id="r1",
            kind=pb.REQUEST_KIND_CHOICE,
            title="?",
            options=[pb.RequestOption(id="a"), pb.RequestOption(id="a")],
        ),
        pb.RequestOpened(request_id="R 1", kind=pb.REQUEST_KIND_TEXT, title="?"),
    ],
    ids=["yes by default", "no options", "options of a text", "one option twice", "id"],
)
async def test_a_request_that_makes_no_sense_is_not_opened(
    wrong: pb.RequestOpened, runtime: Replica, who: Somebody
) -> None:
    worker = FakeWorker(runtime, who)
    await worker.attach()
    run_id = (await runtime.create(who)).run_id
    await worker.next("assignment")
    refused = await worker.append(run_id, 1, "asked", pb.EventBody(request_opened=wrong))
    assert refused.reason == "invalid_value"
    assert refused.field.startswith("events[0].request_opened.")


async def test_a_run_may_ask_more_than_the_list_holds(runtime_database: Database, who: Somebody) -> None:
    settings = runtime_settings(runtime_database, requests=RequestSettings(max_requests=2, page_bytes=1))
    async with replica(settings, who.key) as runtime:
        worker, run_id = await asking(runtime, who)

        async def names() -> list[str]:
            return [one.opened.request_id for one in await listed(runtime, who, run_id)]

        async def settle(call: Any) -> None:
            await call
            await worker.next("news")

        assert await names() == ["r1", "r2"]
        await settle(answer(runtime, who, run_id, "r3", text="because"))
        await settle(answer(runtime, who, run_id, "r1", "yes"))
        assert await names() == ["r1", "r2"]
        await worker.append(run_id, 1, "asked-on", pb.EventBody(request_opened=named("r4")))
        assert await names() == ["r2", "r4"], "what is open comes before what is settled"
        assert (await answer(runtime, who, run_id, "r1", "yes")).already_answered
        await settle(expire(runtime, who, run_id, "r4"))
        assert await names() == ["r2", "r4"]
        await worker.append(run_id, 1, "and-on", pb.EventBody(request_opened=named("r5")))
        assert await names() == ["r2", "r5"]
        await settle(answer(runtime, who, run_id, "r2", "air"))
        assert [one.WhichOneof("settled") for one in await listed(runtime, who, run_id)] == ["answered", None]
        await settle(expire(runtime, who, run_id, "r5"))


def named(request_id: str) -> pb.RequestOpened:
    """A request for a text."""
    return pb.RequestOpened(request_id=request_id, kind=pb.REQUEST_KIND_TEXT, title="Why?")
