"""A program of random commands, lawful and not, by a person, by strangers and by a worker; each answer is compared.

After each command the program waits for what the model says that the authority does by itself: it gives runs to the
worker, interrupts threads, tells parents. So the next command meets a world that is known, however slow the machine is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from openagents.runtime.v1 import run_service_pb2 as pb
from openagents.runtime.v1 import worker_service_pb2 as worker_pb
from services.runtime.tests.random_runs.driver import UNKNOWN, Appended, Driver, one
from services.runtime.tests.random_runs.records import Run, Said, Stored, Wish
from services.runtime.tests.random_runs.spoken import spec_of
from services.runtime.tests.random_runs.stream import Stream
from services.runtime.tests.random_runs.world import RESERVED

MAX_RUNS = 8


class Program(Driver):
    """One program, of one org."""

    async def run(self, steps: int) -> None:
        """So many commands, and then the end of all runs. Raises AssertionError where the service is not the model."""
        await self._create()
        await self._attach()
        await self._settle()
        for _ in range(steps):
            await self._chance.choice(self._choices())()
            await self._settle()
        await self._end()

    def _choices(self) -> list[Callable[[], Awaitable[None]]]:
        """What may come next, the more often the more often it stands here."""
        to_runs = [self._append] * 12 + [self._send, self._answer, self._expire, self._child] * 2 + [self._cancel]
        if self._stream is None:
            return [*to_runs, self._create, self._create, *[self._attach] * 8]
        return [*to_runs, self._create, self._create, self._beat, self._drain, self._detach, self._goodbye]

    # --------------------------------------------------------------------------------------------- people

    async def _create(self) -> None:
        key = self._chance.choice("abcdef")
        wish = self._wish(key)
        expected = self.world.known(key, wish) or ("thread_busy" if self.world.is_busy(wish) else "")
        if not expected and len(self.world.runs) >= MAX_RUNS:
            return
        request = pb.CreateRunRequest(idempotency_key=key, spec=spec_of(wish))
        call = self._runtime.runs.CreateRun(request, metadata=self._who.as_person())
        got = await self._new(
            f"create {key} {wish}", expected, call, lambda said: (said.run.run_id, said.already_created)
        )
        if got:
            self.world.add(got, key, wish)

    def _wish(self, key: str) -> Wish:
        if key in self.world.created and self._chance.random() < 0.5:
            return self.world.created[key][0]
        thread = self._chance.choice(["", "t"])
        policy = self._chance.choice(["", "reject", "enqueue", "interrupt"]) if thread else ""
        return Wish(key, self._chance.choice([1, 2, 3]), thread, policy, self._chance.choice(["", "", "k"]))

    async def _send(self) -> None:
        run, key, says = self._run(), self._chance.choice("abc"), self._chance.choice(["1", '"x"'])
        who, expected = self._somebody(run, lambda: self.world.send(run, key, says))
        request = pb.SendInputRequest(run_id=run.run_id, idempotency_key=key, input_json=says)
        call = self._runtime.runs.SendInput(request, metadata=who.as_person())
        await self._same(
            f"send {key} {says} to {run.run_id}", expected, call, lambda said: one(said.seq, said.already_sent)
        )

    async def _answer(self) -> None:
        run, option = self._run(asked=True), self._chance.choice(["yes", "yes", "no", "maybe"])
        request_id = self._chance.choice([*run.requests, *run.requests, "r1"])
        who, expected = self._somebody(run, lambda: self.world.answer(run, request_id, option))
        request = pb.AnswerRequestRequest(run_id=run.run_id, request_id=request_id, option=option)
        call = self._runtime.runs.AnswerRequest(request, metadata=who.as_person())
        what = f"answer {request_id} {option} of {run.run_id}"
        await self._same(what, expected, call, lambda said: one(said.seq, said.already_answered))

    async def _cancel(self) -> None:
        await self._cancel_run(self._run())

    # --------------------------------------------------------------------------------------------- the worker

    async def _append(self) -> None:
        run = self._run(held=True)
        epoch, key, said, seq = self._epoch(run), f"k{self._chance.randrange(12)}", self._said(run), None
        mine = [(known, content) for known, (content, _) in run.keys.items() if isinstance(content, tuple)]
        if mine and self._chance.random() < 0.15:
            key, said = self._chance.choice(mine)
        if self._chance.random() < 0.15:
            seq = max(0, len(run.log) - self._chance.choice([0, 0, 1]))
        await self._append_to(run, (epoch, key, said, seq))

    async def _append_to(self, run: Run, appended: Appended) -> None:
        if self._stream is None or self._chance.random() < 0.3:
            await self._append_beside(run, self._chance.choice([self._who] * 6 + [self._colleague]), appended)
        else:
            await self._append_on(run, appended)

    def _said(self, run: Run) -> tuple[Said, ...]:
        """Work, an end, or what no worker may say. Children end often, and what may be tried again fails often."""
        text = Said("text_delta", str(len(self.taken)))
        fails = 8 if run.wish.max_failures > 1 else 1
        end = Said("run_finished", self._chance.choice(["succeeded", "canceled", *["failed"] * fails]))
        ask, step = Said("request_opened", self._chance.choice(["r1", "r2"])), Said("step_completed", "s")
        if self._chance.random() < (0.4 if run.parent or run.wish.max_failures > 1 or run.is_over else 0.1):
            return self._chance.choice([(end,), (text, end)])
        work: list[tuple[Said, ...]] = [(text,), (text, text), (step,), (ask,), (ask, step, text)]
        odd: list[tuple[Said, ...]] = [(Said(self._chance.choice(sorted(RESERVED))),), (end, text), (end, end)]
        return self._chance.choice(work * 2 + odd)

    async def _expire(self) -> None:
        run = self._run(asked=True)
        epoch, who = self._epoch(run), self._chance.choice([self._who] * 4 + [self._colleague])
        request_id = self._chance.choice([*run.requests, *run.requests, "r1"])
        request = worker_pb.ExpireRequestRequest(run_id=run.run_id, lease_epoch=epoch, request_id=request_id)
        call = self._runtime.workers.ExpireRequest(request, metadata=who.as_worker())
        fault = self._fault_of(run, epoch, who)
        expected = fault or self.world.expire(run, request_id)
        if isinstance(expected, Stored):
            expected = one(expected.first)  # whether it was settled before is not said
        await self._same(f"expire {request_id} of {run.run_id}", expected, call, lambda said: one(said.seq))

    async def _child(self) -> None:
        run, child_id = self._run(), self._chance.choice(["c1", "c2"])
        epoch, who = self._epoch(run), self._chance.choice([self._who] * 6 + [self._colleague])
        wish, key = Wish(self._chance.choice([child_id] * 4 + ["other"])), f"child/{run.run_id}/{child_id}"
        ends = key in self.world.created or self._chance.random() < 0.5
        is_to_end = "" if run.status == "running" else "invalid_transition"
        expected = self._fault_of(run, epoch, who) or is_to_end or self.world.known(key, wish)
        if not expected and len(self.world.runs) >= MAX_RUNS:
            return
        request = worker_pb.StartChildRequest(
            run_id=run.run_id, lease_epoch=epoch, child_id=child_id, spec=spec_of(wish), cancel_with_parent=ends
        )
        call = self._runtime.workers.StartChild(request, metadata=who.as_worker())
        what = f"start {child_id} of {run.run_id}"
        got = await self._new(what, expected, call, lambda said: (said.child_run_id, said.already_started))
        if got:
            self.world.add_child(got, key, wish, run, child_id, ends_with_parent=ends)

    async def _attach(self) -> None:
        worker_id = self._chance.choice([*self._workers, *self._workers, ""])
        mine = [run for run in self.world.runs.values() if run.is_held and run.worker == worker_id]
        held = {run.run_id: run.epoch for run in mine if self._chance.random() < 0.6}
        if self.world.runs and self._chance.random() < 0.3:
            run = self._chance.choice(list(self.world.runs.values()))
            held[run.run_id] = run.epoch + 1
        self.taken.append(f"attach {worker_id} with {held}")
        self._stream = await Stream.open(self._runtime, self._who, worker_id, held)
        self._workers = list(dict.fromkeys([*self._workers, self._stream.worker_id]))
        self.world.attach(self._stream.worker_id, held)

    async def _beat(self) -> None:
        """With what it holds, and a lease that there never was."""
        assert self._stream is not None
        run = self._run()
        held = {run.run_id: run.epoch + 1} if run.run_id in self.world.runs else {}
        self.taken.append(f"beat with {held}")
        await self._stream.beat(held)
        self.world.believe(held)

    async def _drain(self) -> None:
        assert self._stream is not None
        self.taken.append("drain")
        await self._stream.drain()
        self.world.takes_runs = False
        await self._append_on(UNKNOWN, (1, "k", (Said("text_delta"),), None))

    async def _detach(self) -> None:
        assert self._stream is not None
        self.taken.append("detach")
        await self._stream.close()
        assert self._stream.arrived == [], "it was told what the model does not know of"
        self._stream, self.world.attached, self.world.takes_runs = None, "", False

    async def _goodbye(self) -> None:
        """Not where runs of one family move at once: in which order they do is anybody's guess."""
        assert self._stream is not None
        worker_id = self._stream.worker_id
        if self.world.is_a_family_moved_by_the_loss_of(worker_id):
            return await self._detach()
        self.taken.append("goodbye")
        await self._stream.goodbye()
        self._stream, self.world.attached, self.world.takes_runs = None, "", False
        self.world.leave(worker_id)
        return None

    # --------------------------------------------------------------------------------------------- the end

    async def _end(self) -> None:
        """End what has not ended, in one way or the other."""
        while open_runs := [run for run in self.world.runs.values() if not run.is_over]:
            run = open_runs[0]
            if run.is_held:
                end = Said("run_finished", "canceled" if run.status == "canceling" else "succeeded")
                await self._append_beside(run, self._who, (run.epoch, "end", (end,), None))
            else:
                await self._cancel_run(run)
            await self._settle()
        if self._stream is not None:
            await self._detach()
