"""Several clients at work on one run, and the record of what they asked and were told.

Choices come from a seed; when things happen does not: the same seed gives the same kind of history, not the same one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from .checker import UNKNOWN
from .run_model import (
    Answer,
    Append,
    Appended,
    Assign,
    Call,
    Cancel,
    Deadline,
    Latest,
    LoseLease,
    Read,
    Refused,
    RunModel,
    RunOperation,
)

MAX_CALL_S = 5.0
"""What takes longer gets no answer."""
_LOOK_PAUSE_S = 0.06
_CLOCKS_AGREE = 0.99
"""The deadline is by the database's clock, the history by ours; both run about as fast."""


class Uncertain(Exception):
    """The call may or may not have had its effect."""


class Run(Protocol):
    """The run under test, behind several replicas."""

    replicas: int
    model: RunModel
    """How it stands when the clients begin."""
    takes: tuple[type, ...]
    """The calls that clients can make."""
    cancel_deadline_s: float | None
    """How long after a cancel the authority ends the run by itself; None: when a client asks for it."""

    async def carry_out(self, replica: int, call: Call) -> Answer:
        """Ask a replica. Raises Uncertain."""
        ...

    async def meanwhile(self, recorder: Recorder, notebook: Notebook) -> None:
        """What happens to the run besides; canceled when the clients are done."""
        ...


@dataclass(frozen=True)
class Plan:
    """What one history looks like."""

    seed: int
    clients: int = 5
    operations: int = 30
    keys: int = 10
    retry_share: float = 0.75
    """How often a client that got no answer asks again with the same key."""
    impatient_share: float = 0.1
    """How often a client waits for less than `patience_s`."""
    patience_s: float = 0.006


@dataclass
class Recorder:
    """The history. Its clock is the process's monotonic one, read before the call and after the answer."""

    history: list[RunOperation] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """What is wrong whatever the answers say."""

    async def ask(self, client: str, call: Call, answering: Awaitable[Answer]) -> Answer | None:
        """The answer; None when there was none."""
        invoked = self.now()
        try:
            answer = await answering
        except (Uncertain, TimeoutError):
            self.history.append(RunOperation(client, call, UNKNOWN, invoked))
            return None
        self.history.append(RunOperation(client, call, answer, invoked, self.now()))
        return answer

    def note_unanswered(self, client: str, call: Call, invoked: float | None = None) -> None:
        """A call that nobody gets an answer to, begun now or at `invoked`."""
        self.history.append(RunOperation(client, call, UNKNOWN, self.now() if invoked is None else invoked))

    @staticmethod
    def now() -> float:
        """The clock."""
        return time.perf_counter()


@dataclass
class Notebook:
    """What the clients of a run know together, to make their calls worth something. Nothing relies on it."""

    seq: int
    leases: list[tuple[str, int]]
    canceling: bool = False

    def learn(self, call: Call, answer: Answer) -> None:
        """Note the newest seq and leases, and a cancel."""
        match answer:
            case Latest(seq=seq) | Refused("seq_conflict", int(seq)):
                self.seq = max(self.seq, seq)
            case Appended(_, last, _):
                self.seq = max(self.seq, last)
        self.canceling |= isinstance(call, Cancel) or (isinstance(answer, Latest) and answer.status == "canceling")
        if isinstance(call, Assign) and isinstance(answer, Appended):
            self.leases.append((call.worker, self.leases[-1][1] + 1))
            self.leases.sort(key=lambda lease: lease[1])

    def any_lease(self, chance: random.Random) -> tuple[str, int]:
        """Mostly the newest."""
        return self.leases[-1] if chance.random() < 0.85 else chance.choice(self.leases)


async def record(run: Run, plan: Plan) -> Recorder:
    """What came of `plan.operations` calls on `run`, retries included, and of what else happened to it."""
    recorder = Recorder()
    start = run.model.initial()
    notebook = Notebook(start.seq, [(start.worker, start.epoch)])
    clients = [Client(run, plan, number, recorder, notebook) for number in range(plan.clients)]
    meanwhile = asyncio.create_task(run.meanwhile(recorder, notebook))
    try:
        await asyncio.gather(*(client.work() for client in clients))
        if run.cancel_deadline_s is not None:
            await _see_deadline(clients[0], plan, notebook)
    finally:
        meanwhile.cancel()
        await asyncio.gather(meanwhile, return_exceptions=True)
    _note_deadline(run, recorder)
    return recorder


async def _see_deadline(client: Client, plan: Plan, notebook: Notebook) -> None:
    """What becomes of a run that is canceled; every third is, if it was not before."""
    if plan.seed % 3 == 0:
        await client.ask(Cancel())
    if notebook.canceling:
        for _ in range(4):  # too early, and late enough
            await asyncio.sleep(_LOOK_PAUSE_S)
            await client.ask(Read())


def _note_deadline(run: Run, recorder: Recorder) -> None:
    """Once in the life of a run, from when it may have been due."""
    asked = [operation.invoked for operation in recorder.history if isinstance(operation.call, Cancel)]
    if asked and run.cancel_deadline_s is not None:
        recorder.note_unanswered("auth", Deadline(), min(asked) + run.cancel_deadline_s * _CLOCKS_AGREE)


class Client:
    """Calls, waits for the answer, calls again; on no answer usually the same once more, maybe at another replica."""

    def __init__(self, run: Run, plan: Plan, number: int, recorder: Recorder, notebook: Notebook) -> None:
        self._run = run
        self._plan = plan
        self._name = f"c{number}"
        self._share = plan.operations // plan.clients + (number < plan.operations % plan.clients)
        self._recorder = recorder
        self._notebook = notebook
        self._chance = random.Random(plan.seed * 1000 + number)

    async def work(self) -> None:
        """All of this client's calls."""
        unanswered: Call | None = None
        for number in range(self._share):
            retries = unanswered is not None and self._chance.random() < self._plan.retry_share
            call = unanswered if unanswered and retries else self._next_call(number / self._share)
            answer = await self.ask(call)
            unanswered = call if answer is None else None
            await asyncio.sleep(self._chance.random() * 0.002)

    async def ask(self, call: Call) -> Answer | None:
        """Any replica; None when there was no answer."""
        answer = await self._recorder.ask(self._name, call, self._carry_out(call))
        if answer is not None:
            self._notebook.learn(call, answer)
        return answer

    async def _carry_out(self, call: Call) -> Answer:
        patience_s = MAX_CALL_S
        if self._chance.random() < self._plan.impatient_share:
            patience_s = self._chance.random() * self._plan.patience_s
        async with asyncio.timeout(patience_s):
            return await self._run.carry_out(self._chance.randrange(self._run.replicas), call)

    def _next_call(self, progress: float) -> Call:
        call = self._any_call(progress)
        return call if isinstance(call, self._run.takes) else Read()

    def _any_call(self, progress: float) -> Call:
        """Mostly appends and reads; leases come and go, and in the end somebody may end the run."""
        if self._notebook.canceling and self._chance.random() < 0.4:
            return Deadline()
        chance = self._chance.random()
        if chance < 0.2:
            return Read()
        if chance < 0.75:
            return self._append("")
        if chance < 0.86:
            return Assign(f"w{self._chance.randrange(4)}")
        if chance < 0.92:
            return LoseLease(*self._notebook.any_lease(self._chance))
        if progress < 0.4:
            return Read()
        if chance < 0.96:
            return Cancel()
        return self._append(self._chance.choice(["succeeded", "failed", "canceled"]))

    def _append(self, finish: str) -> Append:
        """Under one of few keys, so that clients get into each other's way; with the newest lease, or an older one."""
        content, count = self._chance.choices("xy", (5, 1))[0], self._chance.randint(1, 3)
        key, known = f"k{self._chance.randrange(self._plan.keys)}", self._notebook.seq
        expected = self._chance.choices([None, known, max(0, known - 1), known + 1], (5, 4, 1, 1))[0]
        worker, epoch = self._notebook.any_lease(self._chance)
        return Append(key, content, 1 if finish else count, expected, worker, epoch, finish)
