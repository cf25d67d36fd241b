"""The sequencer without a database: the order of answers, batches beside each other, failures, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun
from oa_runlog.partitions import partition_of
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState
from services.runtime.log.app.sequencer import Sequencer
from services.runtime.log.domain.batch import Applied, Batch
from services.runtime.log.domain.records import LogRecord
from services.runtime.log.limits import SequencerLimits
from services.runtime.log.tests.fake_log import FakeLog
from services.runtime.log.tests.one_sequencer import FAST, ORG, SPEC, USER, WORKER, append, run_id_in, text

LARGE = 1000
"""Bytes of events that are worth a batch beside another one."""
LIMITS = SequencerLimits(concurrent_batch_min_bytes=LARGE)


class Scene:
    """A sequencer on a log in memory. `said`: what was published and answered, in that order."""

    def __init__(self, limits: SequencerLimits) -> None:
        self.log = FakeLog()
        self.said: list[str] = []
        self.sequencer = Sequencer(self.log, FAST, limits, _seal, self._publish)
        self.task = asyncio.create_task(self.sequencer.run())

    def _publish(self, records: Mapping[int, Sequence[LogRecord]]) -> None:
        assert all(self.log.records[number][-len(its_own) :] == its_own for number, its_own in records.items())
        self.said.append("published")

    def submit(self, command: Command) -> asyncio.Future[Applied]:
        """Submit a command; an append is said under its key when it is answered."""
        answer = self.sequencer.submit(command, partition_of(command.run_id, 16))
        if isinstance(command, Append):
            answer.add_done_callback(self._note(command.idempotency_key))
        return answer

    def _note(self, key: str) -> Callable[[asyncio.Future[Applied]], None]:
        return lambda answer: self.said.append(f"{key} {_word_of(answer)}")

    async def run_in(self, partition: int) -> str:
        """A run that WORKER holds with epoch 1. What it took is not looked at."""
        run_id = run_id_in(partition)
        await self.submit(CreateRun.of(run_id, ORG, USER, SPEC, run_id))
        await self.submit(AssignRun(run_id, WORKER))
        self.log.batches.clear()
        self.said.clear()
        return run_id

    async def held(self, run_id: str, key: str) -> asyncio.Future[Applied]:
        """An append whose batch is under way until its partition is let go."""
        partition = partition_of(run_id, 16)
        self.log.hold(partition)
        answer = self.submit(append(run_id, key))
        async with asyncio.timeout(60):
            await self.log.reached[partition].wait()
        return answer


def _word_of(answer: asyncio.Future[Applied]) -> str:
    error = answer.exception()
    if error is None:
        return "stored"
    assert isinstance(error, Refusal)
    return error.reason


def _seal(state: RunState, log_epoch: str) -> SignedReceipt:
    return SignedReceipt(state.run_id, b"{}", b"", "key")


@asynccontextmanager
async def scene(limits: SequencerLimits = LIMITS) -> AsyncIterator[Scene]:
    one = Scene(limits)
    try:
        yield one
    finally:
        one.sequencer.close()
        async with asyncio.timeout(60):
            with suppress(asyncio.CancelledError):
                await one.task


async def settled(*answers: asyncio.Future[Applied]) -> list[str]:
    """What became of commands."""
    async with asyncio.timeout(60):
        await asyncio.wait(answers)
    await asyncio.sleep(0)
    return [_word_of(answer) for answer in answers]


async def rounds(count: int = 50) -> None:
    """Let everybody do what can be done without anything new."""
    for _ in range(count):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------- order and batches


async def test_answers_come_in_the_order_of_submission_after_what_they_tell_was_published() -> None:
    async with scene(SequencerLimits(batch_commands=2)) as one:
        run_id = await one.run_in(3)
        answers = [one.submit(append(run_id, f"k{n}")) for n in range(5)]
        await settled(*answers)
        assert [answer.result().last_seq for answer in answers] == [3, 4, 5, 6, 7]
        k0, k1, k2, k3, k4 = (f"k{n} stored" for n in range(5))
        assert one.said == ["published", k0, k1, "published", k2, k3, "published", k4]


async def test_runs_that_were_written_are_not_read_again_and_known_keys_are() -> None:
    async with scene() as one:
        run_id = await one.run_in(3)
        first = one.submit(append(run_id, "a"))
        await settled(first)
        again = one.submit(append(run_id, "a"))
        await settled(again)
        assert (again.result().first_seq, again.result().repeated) == (first.result().first_seq, True)
        assert one.log.batches == [("unread", [3])], "nothing is stored a second time"


async def test_what_was_under_way_when_the_log_got_another_past_is_answered_and_not_published() -> None:
    """The server that stored it may be the one that was left: whoever follows the new past must not get it."""
    async with scene() as one:
        run_id = await one.run_in(3)
        under_way = await one.held(run_id, "old")
        one.sequencer.restart()
        one.log.let_go(3)
        await settled(under_way)
        assert one.said == ["old stored"]
        await settled(one.submit(append(run_id, "new")))
        assert one.said == ["old stored", "published", "new stored"]


async def test_nothing_that_was_cached_outlives_the_past_that_it_is_of() -> None:
    async with scene() as one:
        run_id = await one.run_in(3)
        one.sequencer.restart()
        await settled(one.submit(append(run_id, "a")))
        assert one.log.batches == [("read", [3])]


async def test_what_somebody_else_wrote_meanwhile_is_read() -> None:
    async with scene() as one:
        run_id = await one.run_in(3)
        one.log.heads[3] = one.log.heads[3]._replace(chain=b"another past")
        assert await settled(one.submit(append(run_id, "a"))) == ["stored"]
        assert one.log.batches == [("read", [3])]


async def test_a_batch_begins_beside_another_one_if_enough_waits_for_free_partitions() -> None:
    async with scene() as one:
        busy, free = await one.run_in(3), await one.run_in(4)
        first = await one.held(busy, "first")
        second = one.submit(append(busy, "second", text(b"x" * LARGE)))
        little = one.submit(append(free, "little"))
        await settled(little)
        assert one.said == ["published", "little stored"], "so much waits that the free partition is not held up"
        assert not first.done()
        one.log.let_go(3)
        await settled(first, second)
    assert one.said[2:] == ["published", "first stored", "published", "second stored"]


async def test_little_waits_for_the_next_commit() -> None:
    async with scene() as one:
        busy, free = await one.run_in(3), await one.run_in(4)
        first = await one.held(busy, "first")
        answers = [one.submit(append(run_id, key)) for run_id, key in ((free, "a"), (busy, "b"), (free, "c"))]
        await rounds()
        assert one.said == []
        one.log.let_go(3)
        await settled(first, *answers)
        assert one.log.batches == [("unread", [3]), ("unread", [3, 4])]


async def test_no_more_batches_are_under_way_than_there_are_writers() -> None:
    async with scene() as one:
        runs = [await one.run_in(partition) for partition in (1, 2, 3)]
        large = text(b"x" * LARGE)
        first = await one.held(runs[0], "1")
        one.log.hold(2)
        second = one.submit(append(runs[1], "2", large))
        async with asyncio.timeout(60):
            await one.log.reached[2].wait()
        third = one.submit(append(runs[2], "3", large))
        await rounds()
        assert not third.done()
        one.log.let_go(1)
        assert await settled(first, third) == ["stored", "stored"]
        one.log.let_go(2)
        assert await settled(second) == ["stored"]


async def test_a_defect_in_one_command_does_not_take_its_neighbours_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Batch.apply

    def defective(self: Batch, command: Command, *others: object) -> object:
        if isinstance(command, Append) and command.idempotency_key == "bad":
            raise ZeroDivisionError
        return apply(self, command, *others)  # type: ignore[arg-type]  # as they came

    async with scene() as one:
        run_id = await one.run_in(3)
        monkeypatch.setattr(Batch, "apply", defective)
        answers = [one.submit(append(run_id, key)) for key in ("a", "bad", "b")]
        assert await settled(*answers) == ["stored", "internal", "stored"]


# ------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("failure", [ConnectionResetError, asyncio.CancelledError])
async def test_a_batch_that_fails_is_refused_alone_and_its_runs_are_read_again(failure: type[BaseException]) -> None:
    """Also if the connection cancels what waits for it: nobody has asked the writer to end."""
    async with scene(SequencerLimits(writers=1, batch_commands=1)) as one:
        bad, good = await one.run_in(3), await one.run_in(4)
        one.log.failing, one.log.failure = {3}, failure
        before = len(one.log.sessions)
        answers = [one.submit(append(bad, "a")), one.submit(append(good, "b"))]
        assert await settled(*answers) == ["unavailable", "stored"]
        assert one.log.batches == [("read", [4])]
        assert len(one.log.sessions) == before + 1, "over another connection"
        one.log.failing = set()
        assert await settled(one.submit(append(bad, "a"))) == ["stored"]


async def test_what_waits_is_refused_at_once_when_there_is_no_connection_and_found_when_there_is() -> None:
    async with scene() as one:
        run_id = await one.run_in(3)
        for session in one.log.sessions:
            session.is_open = False
        one.log.is_away = True
        answers = [one.submit(append(run_id, f"k{n}")) for n in range(3)]
        assert await settled(*answers) == ["unavailable"] * 3
        assert one.said == ["k0 unavailable", "k1 unavailable", "k2 unavailable"]
        one.log.is_away = False
        assert await settled(one.submit(append(run_id, "k0"))) == ["stored"]


async def test_one_batch_makes_one_connection() -> None:
    """A second one would be made for nothing, and would drop what is cached."""
    async with scene() as one:
        await settled(one.submit(CreateRun.of(run_id_in(3), ORG, USER, SPEC, "key")))
        await rounds()
        assert len(one.log.sessions) == 1


async def test_a_connection_that_went_while_nothing_was_to_do_costs_no_refusal() -> None:
    async with scene() as one:
        run_id = await one.run_in(3)
        await rounds()
        for session in one.log.sessions:
            session.is_open = False
        assert await settled(one.submit(append(run_id, "a"))) == ["stored"]
        assert one.log.batches == [("read", [3])], "another server may have another past"


async def test_a_writer_without_a_connection_answers_nothing_before_what_another_writer_has() -> None:
    """The first append is under way. The one behind it waits, whatever the other writer finds when it connects."""
    async with scene() as one:
        run_id, other = await one.run_in(3), await one.run_in(4)
        first = await one.held(run_id, "first")
        for session in one.log.sessions:
            session.is_open = False
        one.log.is_away = True
        second = one.submit(append(run_id, "second"))
        elsewhere = one.submit(append(other, "elsewhere", text(b"x" * LARGE)))
        assert await settled(elsewhere) == ["unavailable"]
        await rounds()
        assert not second.done()
        one.log.is_away = False
        one.log.let_go(3)
        assert await settled(first, second) == ["stored", "stored"]
        assert one.said == ["elsewhere unavailable", "published", "first stored", "published", "second stored"]


# ------------------------------------------------------------------------------------------------- the end


async def test_closing_finishes_what_is_queued_and_takes_nothing_more() -> None:
    async with scene(SequencerLimits(batch_commands=2)) as one:
        run_id = await one.run_in(3)
        answers = [one.submit(append(run_id, f"k{n}")) for n in range(5)]
        one.sequencer.close()
        with pytest.raises(Refusal) as caught:
            await one.submit(append(run_id, "late"))
        assert caught.value.reason == "draining"
        async with asyncio.timeout(60):
            await one.task
        assert await settled(*answers) == ["stored"] * 5


async def test_being_cancelled_answers_everything_in_order() -> None:
    async with scene() as one:
        run_id, other = await one.run_in(3), await one.run_in(4)
        first = await one.held(run_id, "1")
        answers = [first, *(one.submit(append(to, key)) for to, key in ((run_id, "2"), (other, "3"), (run_id, "4")))]
        one.task.cancel()
        assert await settled(*answers) == ["unavailable"] * 4
        assert one.said == [f"{n} unavailable" for n in range(1, 5)]
        with pytest.raises(Refusal):
            await one.submit(append(run_id, "late"))


async def test_a_full_queue_refuses_and_an_answer_that_nobody_waits_for_is_no_matter() -> None:
    async with scene(SequencerLimits(queue_commands=2)) as one:
        run_id = await one.run_in(3)
        first = await one.held(run_id, "first")
        gone = one.sequencer.submit(append(run_id, "gone"), 3)
        kept = one.submit(append(run_id, "kept"))
        with pytest.raises(Refusal) as caught:
            await one.submit(append(run_id, "one too many"))
        assert (caught.value.reason, caught.value.retry_after_ms) == ("overloaded", LIMITS.overloaded_retry_ms)
        gone.cancel()
        one.log.let_go(3)
        assert await settled(first, kept) == ["stored", "stored"]
        assert [record.seq for record in one.log.records[3]] == [1, 2, 3, 4, 5], "it was carried out all the same"


async def test_a_defect_that_one_command_meets_takes_none_of_its_batch_with_it() -> None:
    async with scene() as at:
        broken, fine = await at.run_in(1), await at.run_in(2)
        at.log.defective.add(broken)
        sessions = len(at.log.sessions)
        answers = [at.submit(append(run_id, key)) for run_id, key in ((fine, "a"), (broken, "b"), (fine, "c"))]
        await asyncio.wait(answers)
        assert [word for word in at.said if word != "published"] == ["a stored", "b unavailable", "c stored"]
        assert len(at.log.sessions) == sessions, "its connection is as good as before"
        at.log.defective.clear()
        assert (await at.submit(append(broken, "b"))).first_seq == 3
