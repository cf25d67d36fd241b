"""Snapshots of runs: how one stands at a seq, from real appends, and what of it is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from oa_khala.topics import run_events
from oa_runlog import wire
from oa_runlog.proof.chain import chain_next, chain_start
from oa_runlog.state import TOTAL_NAMES, RunState, RunStatus
from oa_runlog.state.reducer import replay
from oa_testing.postgres import Database
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1 import run_pb2, run_service_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.runtime.archive.tests.archive_rig import archive_rig
from services.runtime.log.limits import ExcerptLimits
from services.runtime.log.store.excerpts import PostgresExcerpts
from services.runtime.tests.pools import postgres_of
from services.runtime.tests.rig import (
    AS_GATEWAY,
    Doors,
    FakeWorker,
    Replica,
    Somebody,
    attached,
    finish,
    text,
    until_status,
)
from services.runtime.topics.domain import open_requests

APPENDS = 12


async def read(runtime: Doors, run_id: str) -> tuple[topic_service_pb2.ReadSnapshotResponse, run_pb2.RunSnapshot]:
    """The snapshot of a run."""
    request = topic_service_pb2.ReadSnapshotRequest(topic=run_events(run_id))
    answer = await runtime.topics.ReadSnapshot(request, metadata=AS_GATEWAY)
    return answer, run_pb2.RunSnapshot.FromString(answer.payload)


async def events_of(runtime: Doors, run_id: str) -> list[bytes]:
    """All events of a run, as gateways get them."""
    topic = run_events(run_id)
    asked = topic_service_pb2.DescribeTopicRequest(topic=topic)
    epoch = (await runtime.topics.DescribeTopic(asked, metadata=AS_GATEWAY)).epoch
    request = topic_service_pb2.ReplayTopicRequest(topic=topic, epoch=epoch, max_frames=5_000)
    page = (await runtime.topics.ReplayTopic(request, metadata=AS_GATEWAY)).page
    return [frame_pb2.KhalaFrame.FromString(frame).payload_bytes for frame in page.frames]


def message(said: str) -> pb.EventBody:
    return pb.EventBody(message=pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, text=said))


def asked(request_id: str) -> pb.EventBody:
    approval = pb.RequestOpened(request_id=request_id, kind=pb.REQUEST_KIND_APPROVAL, title=f"{request_id}?")
    return pb.EventBody(request_opened=approval)


def progress(said: str) -> pb.EventBody:
    return pb.EventBody(progress_reported=pb.ProgressReported(text=said))


def step(ordinal: int) -> pb.EventBody:
    done = pb.StepCompleted(ordinal=ordinal, name="a", fingerprint=b"f" * 32, result_json="1")
    return pb.EventBody(step_completed=done)


def ids(events: Any) -> list[str]:
    return [event.body.request_opened.request_id for event in events]


async def started(runtime: Doors, who: Somebody) -> tuple[FakeWorker, str]:
    worker = await attached(runtime, who)
    run_id = (await runtime.create(who)).run_id
    await worker.next("assignment")
    return worker, run_id


async def test_a_snapshot_says_how_the_run_stands(runtime: Replica, who: Somebody) -> None:
    worker, run_id = await started(runtime, who)
    first = [message("one"), text(b"out"), asked("a"), asked("b"), progress("half"), step(1), step(2), message("two")]
    await worker.append(run_id, 1, "first", *first)
    answered = run_service_pb2.AnswerRequestRequest(run_id=run_id, request_id="a", option="yes")
    await runtime.runs.AnswerRequest(answered, metadata=who.as_person())
    answer, found = await read(runtime, run_id)
    assert found.run == await runtime.run(who, run_id)
    assert (answer.seq, answer.chain) == (found.run.latest_seq, found.run.chain_head)
    assert [event.body.message.text for event in found.messages] == ["one", "two"]
    assert [event.body.text_delta.data for event in found.output] == [b"out"]
    assert (ids(found.open_requests), found.progress.text, found.steps) == (["b"], "half", 2)
    assert (found.totals.messages, found.totals.text_bytes) == (2, 3)
    assert not found.HasField("archived")
    await worker.append(run_id, 1, "end", finish())
    await until_status(runtime, who, run_id, run_pb2.RUN_STATUS_SUCCEEDED)
    _, ended = await read(runtime, run_id)
    assert (ended.run.status, ids(ended.open_requests)) == (run_pb2.RUN_STATUS_SUCCEEDED, [])


async def test_the_state_at_a_seq_is_the_fold_of_the_events_up_to_it_also_while_they_come(
    runtime: Replica, who: Somebody
) -> None:
    worker, run_id = await started(runtime, who)

    async def work() -> None:
        for number in range(APPENDS):
            bodies = [message(f"m{number}"), text(b"x" * number), asked(f"r{number}"), progress(f"p{number}")]
            await worker.append(run_id, 1, f"k{number}", *bodies)

    working = asyncio.create_task(work())
    taken: list[tuple[topic_service_pb2.ReadSnapshotResponse, run_pb2.RunSnapshot]] = []
    while not working.done() or not taken:
        taken.append(await read(runtime, run_id))
    await working
    taken.append(await read(runtime, run_id))
    events = await events_of(runtime, run_id)
    for answer, found in taken:
        check_fold(answer, found, events[: answer.seq])
    assert taken[-1][0].seq == len(events)


def check_fold(answer: topic_service_pb2.ReadSnapshotResponse, found: run_pb2.RunSnapshot, events: list[bytes]) -> None:
    """Everything in `found` follows from `events`, which are those up to its seq."""
    state = replay(events)
    assert isinstance(state, RunState)
    chain = chain_start(state.run_id)
    for data in events:
        chain = chain_next(chain, data)
    assert answer.chain == found.run.chain_head == state.chain_head == chain
    assert found.run == wire.run_to_wire(state, wire.decode_event(events[0]).body.spec, run_events(state.run_id))  # type: ignore[union-attr]
    assert {name: getattr(found.totals, name) for name in TOTAL_NAMES} == {
        name: getattr(state.totals, name) for name in TOTAL_NAMES
    }
    all_events = [pb.RunEvent.FromString(data) for data in events]
    of = {kind: [event for event in all_events if event.body.HasField(kind)] for kind in ("message", "request_opened")}
    assert list(found.messages) == of["message"]
    assert list(found.open_requests) == of["request_opened"]
    reported = [event.body.progress_reported for event in all_events if event.body.HasField("progress_reported")]
    assert [found.progress.text] == [reported[-1].text if reported else ""]


async def test_what_is_shown_of_events_is_the_newest_that_find_room(
    runtime: Replica, runtime_database: Database, who: Somebody
) -> None:
    worker, run_id = await started(runtime, who)
    bodies = [message(f"{n}" * 100) for n in range(6)] + [text(b"%d" % n * 100) for n in range(6)] + [asked("a")]
    await worker.append(run_id, 1, "k", *bodies)
    async with postgres_of(runtime_database.runtime, "excerpts") as postgres:
        limits = ExcerptLimits(messages=4, output_events=4, output_bytes=250, request_events=1, request_bytes=1)
        found = await PostgresExcerpts(postgres, limits).excerpt(run_id)
        few = await PostgresExcerpts(postgres, ExcerptLimits(message_bytes=1)).excerpt(run_id)
        assert await PostgresExcerpts(postgres).excerpt("run_01JD0000000000000000000000") is None
    assert found is not None
    assert few is not None
    told = [pb.RunEvent.FromString(data).body for data in found.messages]
    assert [body.message.text[0] for body in told] == ["2", "3", "4", "5"]
    wrote = [pb.RunEvent.FromString(data).body.text_delta.data[:1] for data in found.output]
    assert wrote == [b"4", b"5"], "of the newest 4 events, one asks; there is room for two pieces"
    assert (len(found.requests), len(few.messages)) == (1, 1), "the newest one is there whatever its size"


async def test_the_progress_of_a_lost_attempt_is_not_that_of_the_next(
    runtime: Replica, runtime_database: Database, who: Somebody
) -> None:
    worker, run_id = await started(runtime, who)
    again = pb.QueuePolicy(retry=pb.RetryPolicy(max_failures=2, initial_delay_ms=0))
    retried = (await runtime.create(who, "again", queue=again)).run_id
    await worker.next("assignment")
    await worker.append(retried, 1, "k", progress("half"))
    assert (await read(runtime, retried))[1].progress.text == "half"
    await worker.append(retried, 1, "failed", finish(pb.RUN_OUTCOME_FAILED))
    assert run_id != retried
    await worker.next("assignment")
    _, found = await read(runtime, retried)
    assert (found.run.attempt, found.HasField("progress")) == (2, False)


async def test_an_archived_run_says_where_its_events_are(runtime_database: Database, tmp_path: Path) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        _, before = await read(rig.runtime, run_id)
        assert before.output
        await rig.archiver().archive_run(run_id)
        answer, found = await read(rig.runtime, run_id)
        archived = await rig.records.find(run_id)
        assert archived is not None
        assert (found.archived.sha256, found.archived.size_bytes) == (archived.sha256, archived.bytes)
        assert (found.run, found.totals) == (before.run, before.totals)
        assert (answer.seq, answer.chain, len(found.output)) == (before.run.latest_seq, before.run.chain_head, 0)
        described = await rig.runtime.topics.DescribeTopic(
            topic_service_pb2.DescribeTopicRequest(topic=run_events(run_id)), metadata=AS_GATEWAY
        )
        assert (described.floor, described.snapshot_on_request) == (answer.seq, True)
        assert not described.snapshot_available, "gateways of before would send it to everybody"


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.FAILED])
def test_what_was_settled_is_not_open_and_a_run_that_has_ended_waits_for_nothing(status: RunStatus) -> None:
    def stored(seq: int, body: pb.EventBody) -> bytes:
        event = pb.RunEvent(run_id="run_01JD0000000000000000000000", seq=seq, schema_version=1, body=body)
        event.recorded_time.FromNanoseconds(seq)
        return event.SerializeToString()

    settled = pb.EventBody(request_answered=pb.RequestAnswered(request_id="a", option="yes", answered_by="usr_a"))
    expired = pb.EventBody(request_expired=pb.RequestExpired(request_id="c"))
    bodies = [settled, asked("a"), asked("b"), asked("b"), asked("c"), expired, asked("c"), asked("d")]
    events = [stored(seq, body) for seq, body in enumerate(bodies, 1)]
    found = [pb.RunEvent.FromString(data).seq for data in open_requests(status, events)]
    assert found == ([3, 8] if status is RunStatus.RUNNING else [])
