"""Random programs over real gRPC are answered as a small model says, and leave the logs that it says, proved.

A program that fails is told with its seed and its steps. `OA_TEST_PROGRAM_SEEDS=17` runs that one alone, and `0:500`
runs so many.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from oa_runlog import wire
from oa_runlog.proof.verify import verify_record
from oa_testing.postgres import Database
from oa_testing.sizes import size
from openagents.runtime.v1 import event_pb2, receipt_service_pb2
from openagents.sync.v1 import frame_pb2, topic_service_pb2
from services.runtime.config import RunSettings
from services.runtime.tests.fetching import keys_of
from services.runtime.tests.random_runs.authority import MAX_RUNNING
from services.runtime.tests.random_runs.program import Program
from services.runtime.tests.random_runs.records import Run
from services.runtime.tests.random_runs.spoken import entry_of
from services.runtime.tests.rig import (
    AS_GATEWAY,
    PATIENT_WORKERS,
    Replica,
    Somebody,
    replica,
    runtime_settings,
    somebody,
)

SEEDS, STEPS = size(short=12, long=16), 60
"""Programs of the suite, and commands of each."""
AT_ONCE = 4
"""So many programs run beside each other, each with an org of its own: their commands meet in batches."""
NEVER_MS = 600_000
WORKERS = replace(PATIENT_WORKERS, retry_initial_ms=1)
"""A run whose worker was lost hardly waits: which of two goes first is to depend on the seed, not on the machine."""
REACHED = {
    f"{what} {which}"
    for what, those in {
        "answer": "accepted invalid_transition invalid_value not_found request_settled",
        "append": "accepted already_finished event_reserved idempotency_conflict invalid_transition not_found "
        "seq_conflict stale_epoch",
        "cancel": "accepted not_found",
        "create": "accepted idempotency_conflict thread_busy",
        "expire": "accepted not_found stale_epoch",
        "send": "accepted invalid_transition not_found",
        "start": "accepted invalid_transition not_found stale_epoch",
        "stored": "attempt_failed child_finished child_started executor_lost input_received request_answered "
        "request_expired request_opened run_cancel_requested run_created run_finished run_started step_completed",
    }.items()
    for which in those.split()
}
"""What the programs of the suite meet at least: answers to commands, and events."""


def seeds() -> list[int]:
    """Those of the suite, or those that were asked for."""
    first, colon, end = os.environ.get("OA_TEST_PROGRAM_SEEDS", f"0:{SEEDS}").partition(":")
    return list(range(int(first), int(end) if colon else int(first) + 1))


async def test_answers_and_logs_of_random_programs_match_the_model(runtime_database: Database) -> None:
    chosen = seeds()
    answers = await run_programs(runtime_database, chosen)
    if len(chosen) >= SEEDS:
        assert set(answers) >= REACHED, sorted(REACHED - set(answers))


@pytest.mark.parametrize(
    "rule",
    [
        "oa_runlog.authority.decide.check_lease",
        "oa_runlog.authority.decide.check_reserved",
        "oa_runlog.authority.decide.check_expected_seq",
        "services.runtime.requests.app.check_answer",
    ],
)
async def test_a_rule_that_is_missing_is_noticed(
    runtime_database: Database, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(rule, lambda *_: None)
    with pytest.raises(AssertionError, match="the model says"):
        await run_programs(runtime_database, range(AT_ONCE))


async def run_programs(database: Database, chosen: Sequence[int]) -> Counter[str]:
    """Run the programs of these seeds. What they met; raises what the first failed with."""
    owner, answers = somebody(), Counter[str]()
    runs = RunSettings(cancel_deadline_ms=NEVER_MS, max_running_per_org=MAX_RUNNING)
    settings = runtime_settings(database, runs=runs, workers=WORKERS)
    async with replica(settings, owner.key) as runtime:
        for first in range(0, len(chosen), AT_ONCE):
            programs = [run_program(runtime, Somebody(owner.key), seed) for seed in chosen[first : first + AT_ONCE]]
            for outcome in await asyncio.gather(*programs, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                answers += outcome
    return answers


async def run_program(runtime: Replica, who: Somebody, seed: int) -> Counter[str]:
    """Run one, and check its logs. What it met."""
    program = Program(runtime, who, seed)
    try:
        await program.run(STEPS)
        await check_logs(runtime, who, program.world.runs.values())
    except BaseException as error:
        steps = "\n".join(program.taken)
        error.add_note(f"OA_TEST_PROGRAM_SEEDS={seed} runs it again. In the last of these steps, or after it:\n{steps}")
        raise
    finally:
        await program.close()
    stored = (f"stored {entry.kind}" for run in program.world.runs.values() for entry in run.log)
    return program.answers + Counter(stored)


async def check_logs(runtime: Replica, who: Somebody, runs: Iterable[Run]) -> None:
    """Each log is the model's, without a hole, and its receipt proves it."""
    keys = await keys_of(runtime, who)
    for run in runs:
        log = await stored_log(runtime, run.run_id)
        events = [event_pb2.RunEvent.FromString(data) for data in log]
        assert [entry_of(event) for event in events] == run.log, run.run_id
        assert [event.seq for event in events] == list(range(1, len(run.log) + 1))
        request = receipt_service_pb2.GetReceiptRequest(run_id=run.run_id)
        receipt = (await runtime.receipts.GetReceipt(request, metadata=who.as_person())).receipt
        assert verify_record(wire.receipt_from_wire(receipt), keys, log, run_id=run.run_id).count == len(run.log)


async def stored_log(runtime: Replica, run_id: str) -> list[bytes]:
    """All events of a run, as gateways read them."""
    topic = f"run:{run_id}:events"
    described = await runtime.topics.DescribeTopic(
        topic_service_pb2.DescribeTopicRequest(topic=topic), metadata=AS_GATEWAY
    )
    log: list[bytes] = []
    while len(log) < described.head:
        request = topic_service_pb2.ReplayTopicRequest(topic=topic, epoch=described.epoch, after_seq=len(log))
        page = (await runtime.topics.ReplayTopic(request, metadata=AS_GATEWAY)).page
        log += [frame_pb2.KhalaFrame.FromString(frame).payload_bytes for frame in page.frames]
    return log
