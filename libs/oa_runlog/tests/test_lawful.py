"""A record is proved only if an authority could have written it: hashes that fit are not enough.

Each history here is signed by the authority's own key, with the counts and the chain head of the events as they stand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_runlog.canonical import canonical_json
from oa_runlog.events import (
    AttemptFailed,
    EventBody,
    ExecSpec,
    ExecutorLost,
    Outcome,
    QueuePolicy,
    RetryPolicy,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunSpec,
    RunStarted,
)
from oa_runlog.proof.chain import chain_over
from oa_runlog.proof.receipt import SignedReceipt, read_facts
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.proof.verify import verify_artifact, verify_record
from oa_runlog.state.reducer import replay
from oa_runlog.tests.records import KEY, KEYS, SIGNER, record, stored, text
from oa_runlog.tests.values import ORG_ID, OTHER_WORKER_ID, RUN_ID, USER_ID, WORKER_ID

Line = tuple[int, EventBody]
"""An event, and the lease that it is under: 0 for the authority."""

CREATED: Line = (0, RunCreated(USER_ID, ORG_ID, RunSpec("exec", ExecSpec(("ls",)))))
CANCEL: Line = (0, RunCancelRequested(USER_ID))
SUCCEEDED, FAILED, CANCELED = (RunFinished(outcome) for outcome in Outcome)


def started(epoch: int = 1, attempt: int = 1, worker: str = WORKER_ID) -> Line:
    return 0, RunStarted(worker, epoch, attempt)


def lost(epoch: int = 1, attempt: int = 1, worker: str = WORKER_ID, *, requeued: bool = True) -> Line:
    return 0, ExecutorLost(worker, epoch, attempt, requeued)


def work(epoch: int = 1) -> Line:
    return epoch, text(b"x")


def signed(events: list[bytes]) -> SignedReceipt:
    """The authority's signature over a record as it stands, whatever it is."""
    facts = read_facts(record([]).receipt.canonical_json)
    head = chain_over(RUN_ID, events).hex()
    data = canonical_json(replace(facts, last_seq=len(events), count=len(events), chain_head=head).members())
    return SignedReceipt(RUN_ID, data, KEY.sign(data), SIGNER.key_id)


def events_of(lines: tuple[Line, ...]) -> list[bytes]:
    return stored([body for _, body in lines], leases=[lease for lease, _ in lines])


def failed(epoch: int = 1, attempt: int = 1, worker: str = WORKER_ID) -> Line:
    return 0, AttemptFailed(worker, epoch, attempt, FAILED, 0)


def created(queue: QueuePolicy) -> Line:
    return 0, RunCreated(USER_ID, ORG_ID, RunSpec("exec", ExecSpec(("ls",)), queue=queue))


RETRIED = created(QueuePolicy(retry=RetryPolicy(2)))
TIMED = created(QueuePolicy(start_timeout_ms=1, run_timeout_ms=1))

_AGAIN_AND_AGAIN = (started(2, 2), failed(2, 2), started(3, 3), (3, FAILED))

LAWFUL: dict[str, tuple[Line, ...]] = {
    "succeeded": (CREATED, started(), work(), (1, SUCCEEDED)),
    "taken over": (CREATED, started(), lost(), started(2, 2, OTHER_WORKER_ID), work(2), (2, FAILED)),
    "lost for good": (CREATED, started(), lost(requeued=False), (0, FAILED)),
    "canceled before a worker had it": (CREATED, CANCEL, (0, CANCELED)),
    "canceled between two workers": (CREATED, started(), lost(), CANCEL, (0, CANCELED)),
    "canceled by its worker": (CREATED, started(), CANCEL, work(), (1, CANCELED)),
    "canceled by the deadline": (CREATED, started(), CANCEL, (0, CANCELED)),
    "lost while canceling": (CREATED, started(), CANCEL, lost(requeued=False), (0, CANCELED)),
    "succeeded all the same": (CREATED, started(), CANCEL, (1, SUCCEEDED)),
    "tried again": (RETRIED, started(), work(), failed(), started(2, 2), (2, FAILED)),
    "canceled between two attempts": (RETRIED, started(), failed(), CANCEL, (0, CANCELED)),
    "not started in time": (TIMED, (0, FAILED)),
    "not ended in time": (TIMED, started(), work(), (0, FAILED)),
    "not ended in time, between two workers": (TIMED, started(), lost(), (0, FAILED)),
}

UNLAWFUL: dict[str, tuple[Line, ...]] = {
    "started twice": (CREATED, started(), started(2, 2), (2, SUCCEEDED)),
    "started twice under one lease": (CREATED, started(), started(), (1, SUCCEEDED)),
    "started at another attempt": (CREATED, started(1, 2), (1, SUCCEEDED)),
    "lease epoch left out": (CREATED, started(2, 1), (2, SUCCEEDED)),
    "lease epoch does not rise": (CREATED, started(), lost(), started(1, 2), (1, SUCCEEDED)),
    "attempt does not rise": (CREATED, started(), lost(), started(2, 1), (2, SUCCEEDED)),
    "started by a worker": (CREATED, (1, RunStarted(WORKER_ID, 1, 1)), (1, SUCCEEDED)),
    "created by a worker": ((1, CREATED[1]), started(), (1, SUCCEEDED)),
    "created twice": (CREATED, CREATED, started(), (1, SUCCEEDED)),
    "never created": (started(), (1, SUCCEEDED)),
    "never started": (CREATED, (0, SUCCEEDED)),
    "work before a start": (CREATED, work(0), started(), (1, SUCCEEDED)),
    "work by the authority": (CREATED, started(), work(0), (1, SUCCEEDED)),
    "work under an old lease": (CREATED, started(), lost(), started(2, 2), work(1), (2, SUCCEEDED)),
    "work under a lease to come": (CREATED, started(), work(2), (1, SUCCEEDED)),
    "work after the loss": (CREATED, started(), lost(), work(1), started(2, 2), (2, SUCCEEDED)),
    "finish under an old lease": (CREATED, started(), lost(), started(2, 2), (1, SUCCEEDED)),
    "finish after the loss": (CREATED, started(), lost(), (1, SUCCEEDED)),
    "success said by the authority": (CREATED, started(), (0, SUCCEEDED)),
    "failure without a loss": (CREATED, started(), (0, FAILED)),
    "failure though another may take over": (CREATED, started(), lost(), (0, FAILED)),
    "start after a loss for good": (CREATED, started(), lost(requeued=False), started(2, 2), (2, SUCCEEDED)),
    "cancel after a loss for good": (CREATED, started(), lost(requeued=False), CANCEL, (0, CANCELED)),
    "somebody else was lost": (CREATED, started(), lost(worker=OTHER_WORKER_ID), started(2, 2), (2, SUCCEEDED)),
    "another lease was lost": (CREATED, started(), lost(2, 1), started(2, 2), (2, SUCCEEDED)),
    "another attempt was lost": (CREATED, started(), lost(1, 2), started(2, 2), (2, SUCCEEDED)),
    "lost twice": (CREATED, started(), lost(), lost(), started(2, 2), (2, SUCCEEDED)),
    "lost before a start": (CREATED, lost(), started(), (1, SUCCEEDED)),
    "lost by a worker's word": (CREATED, started(), (1, lost()[1]), started(2, 2), (2, SUCCEEDED)),
    "canceled without a request": (CREATED, started(), (1, CANCELED)),
    "canceled by the authority without a request": (CREATED, started(), (0, CANCELED)),
    "cancel requested by a worker": (CREATED, started(), (1, CANCEL[1]), (1, CANCELED)),
    "cancel requested twice": (CREATED, started(), CANCEL, CANCEL, (1, CANCELED)),
    "waits for another though it is canceled": (CREATED, started(), CANCEL, lost(), (0, CANCELED)),
    "started though it is canceled": (CREATED, CANCEL, started(), (1, CANCELED)),
    "failed by the authority though it is canceled": (CREATED, started(), CANCEL, (0, FAILED)),
    "canceled by a worker that never had it": (CREATED, CANCEL, (1, CANCELED)),
    "goes on after its end": (CREATED, started(), (1, SUCCEEDED), work()),
    "tried again without a policy": (CREATED, started(), failed(), started(2, 2), (2, SUCCEEDED)),
    "tried again once too often": (RETRIED, started(), failed(), *_AGAIN_AND_AGAIN),
    "tried again by a worker's word": (RETRIED, started(), (1, failed()[1]), started(2, 2), (2, SUCCEEDED)),
    "another lease failed": (RETRIED, started(), failed(2, 1), started(2, 2), (2, SUCCEEDED)),
    "somebody else failed": (RETRIED, started(), failed(worker=OTHER_WORKER_ID), started(2, 2), (2, SUCCEEDED)),
    "failed before a start": (RETRIED, failed(), started(), (1, SUCCEEDED)),
    "failed after the loss": (RETRIED, started(), lost(), failed(), started(2, 2), (2, SUCCEEDED)),
    "work after the attempt failed": (RETRIED, started(), failed(), work(), started(2, 2), (2, SUCCEEDED)),
    "tried again though it is canceled": (RETRIED, started(), CANCEL, failed(), (0, CANCELED)),
    "not started in a time that is not stated": (CREATED, (0, FAILED)),
    "success by the authority after its time": (TIMED, started(), (0, SUCCEEDED)),
    "ends twice": (CREATED, started(), (1, SUCCEEDED), (1, SUCCEEDED)),
    "cancel after the end": (CREATED, started(), (1, SUCCEEDED), CANCEL),
}


@pytest.mark.parametrize("lines", LAWFUL.values(), ids=LAWFUL.keys())
def test_what_the_authority_writes_is_proved(lines: tuple[Line, ...]) -> None:
    events = events_of(lines)
    state = replay(events)
    assert state is not None
    receipt = SIGNER.sign(state, "log_1")
    assert verify_record(receipt, KEYS, events).count == len(lines)
    assert verify_artifact(artifact_lines(receipt, events), KEYS).state == state


@pytest.mark.parametrize("lines", UNLAWFUL.values(), ids=UNLAWFUL.keys())
def test_what_no_authority_writes_is_not_proved_though_it_is_signed(lines: tuple[Line, ...]) -> None:
    events = events_of(lines)
    receipt = signed(events)
    for verify in (
        lambda: verify_record(receipt, KEYS, events),
        lambda: verify_artifact(artifact_lines(receipt, events), KEYS),
    ):
        with pytest.raises(Refusal) as caught:
            verify()
        assert caught.value.reason == "outcome_mismatch"
        assert "the events are no run" in caught.value.message


def test_the_signature_of_these_histories_is_no_fault() -> None:
    events = events_of(LAWFUL["succeeded"])
    with pytest.raises(Refusal) as caught:
        verify_record(signed(events), KEYS, events)
    assert "the events are no run" not in caught.value.message, "they are one; their totals are others"
