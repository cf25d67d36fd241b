"""Runs behind three replicas of the log: each has its own sequencers and pool, all write one database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_base.refusal import Refusal
from oa_platform.postgres.pool import Postgres
from oa_platform.system.ids import new_id
from oa_runlog.authority import commands
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import Custom, EventBody, ExecSpec, Outcome, RunFinished, RunSpec
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.state import RunState
from oa_testing.postgres import Database, patient_settings
from services.runtime.authority.store import read_installation
from services.runtime.log.app.log import Log
from services.runtime.log.app.ports import LogStore
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.log.limits import SequencerLimits
from services.runtime.log.store.log import PostgresLog
from services.runtime.log.store.reads import PostgresReads
from tests.order.harness import Calls, Trouble
from tests.order.runtime_log import TroubledStore

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
    RunLog,
    RunModel,
)
from .workload import Notebook, Recorder, Uncertain

REPLICAS = 3
ORG, USER = new_id("org"), new_id("usr")
# A cancel's deadline is there at once: it is carried out when a client says so.
_LIMITS = RunLimits(events_per_second=10_000_000, burst_events=10_000_000, max_requeues=2, cancel_deadline_ms=0)
UNCERTAIN = frozenset({"unavailable", "overloaded", "deadline_exceeded"})
"""Refusals after which the command may have been carried out, or may be still."""
_KEY = Ed25519PrivateKey.generate()
_CALLS_PER_KILL = 12
"""On average."""

StoreDefect = Callable[[LogStore], LogStore]
"""Makes a store that has a defect out of one that has not."""


class RunReader(Protocol):
    """What reads need."""

    async def run(self, run_id: str) -> RunRecord | None:
        """A run."""
        ...


ReaderDefect = Callable[[RunReader], RunReader]


def no_store_defect(store: LogStore) -> LogStore:
    """The store as it is."""
    return store


def no_reader_defect(reader: RunReader) -> RunReader:
    """The reader as it is."""
    return reader


@dataclass
class _Replica:
    reads: RunReader
    log: Log


class Replicas:
    """Three replicas on a database, whose connections are killed all the time; an async context manager."""

    def __init__(
        self,
        database: Database,
        seed: int,
        store_defect: StoreDefect = no_store_defect,
        reader_defect: ReaderDefect = no_reader_defect,
    ) -> None:
        self._database = database
        self._seed = seed
        self._store_defect = store_defect
        self._reader_defect = reader_defect
        self._stack = AsyncExitStack()
        self.replicas: list[_Replica] = []
        self.kills = 0
        self._calls = Calls()
        self._setup: Log

    async def __aenter__(self) -> Replicas:
        setup = await self._pool("setup")
        self._setup = await self._log(setup, PostgresLog(setup))
        for number in range(REPLICAS):
            self.replicas.append(await self._start(number))
        killer = asyncio.create_task(self._kill_connections())
        self._stack.callback(killer.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, number: int) -> _Replica:
        postgres = await self._pool(f"replica-{number}")
        troubled = TroubledStore(PostgresLog(postgres), Trouble(), self._seed + number)
        log = await self._log(postgres, self._store_defect(troubled))
        return _Replica(self._reader_defect(PostgresReads(postgres)), log)

    async def _pool(self, name: str) -> Postgres:
        settings = patient_settings(self._database.runtime, pool_min=1, pool_max=8)
        return await self._stack.enter_async_context(Postgres(settings, name))

    async def _log(self, postgres: Postgres, store: LogStore) -> Log:
        installation = await read_installation(postgres)
        log = Log(installation, store, _LIMITS, SequencerLimits(), _seal, lambda _entries: None)
        return await self._stack.enter_async_context(log)

    async def new_run(self) -> ReplicatedRun:
        """A new run that "w0" has got, without any trouble."""
        run_id, worker, spec = new_id("run"), "w0", RunSpec("exec", ExecSpec(("true",)))
        await self._set_up(commands.CreateRun.of(run_id, ORG, USER, spec, run_id))
        await self._set_up(commands.AssignRun(run_id, worker))
        start = RunLog(seq=2, worker=worker, epoch=1)
        model = RunModel(start=start, max_requeues=_LIMITS.max_requeues)
        return ReplicatedRun(self.replicas, self._calls, run_id, model)

    async def _set_up(self, command: commands.Command) -> None:
        """Carry it out, though the commits of others may let this one fail where a defect is tried out."""
        while True:
            try:
                await self._setup.do(command)
            except Refusal as refusal:
                if refusal.reason != "unavailable":
                    raise
            else:
                return

    async def _kill_connections(self) -> None:
        chance = random.Random(self._seed)
        admin = await asyncpg.connect(self._database.admin)
        try:
            while True:
                await self._calls.passed(chance.random() * 2 * _CALLS_PER_KILL)
                pids = await admin.fetch(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'replica-%' ORDER BY pid"
                )
                if pids:
                    await admin.execute("SELECT pg_terminate_backend($1)", chance.choice(pids)["pid"])
                    self.kills += 1
        finally:
            admin.terminate()


@dataclass
class ReplicatedRun:
    """One run of them."""

    _replicas: Sequence[_Replica]
    _calls: Calls
    run_id: str
    model: RunModel
    replicas: int = REPLICAS
    takes: tuple[type, ...] = (Append, Read, Assign, LoseLease, Cancel, Deadline)
    cancel_deadline_s: float | None = None

    async def carry_out(self, replica: int, call: Call) -> Answer:
        """Ask a replica."""
        self._calls.note()
        try:
            if isinstance(call, Read):
                return await self._read(self._replicas[replica])
            return _appended(await self._replicas[replica].log.do(self._command(call)))
        except Refusal as refusal:
            if refusal.reason in UNCERTAIN:
                raise Uncertain from refusal
            return refused(refusal)

    async def meanwhile(self, recorder: Recorder, notebook: Notebook) -> None:
        """Nothing happens but what the clients do."""

    async def _read(self, replica: _Replica) -> Latest:
        run = await replica.reads.run(self.run_id)
        assert run is not None, "the run is there since before the history began"
        return Latest(run.state.latest_seq, str(run.state.status), run.state.lease_epoch)

    def _command(self, call: Append | Assign | LoseLease | Cancel | Deadline) -> commands.Command:
        match call:
            case Append():
                lease, bodies = (call.worker, call.epoch), _bodies(call)
                return commands.Append.of(self.run_id, ORG, *lease, call.key, bodies, call.expected_seq)
            case Assign(worker):
                return commands.AssignRun(self.run_id, worker)
            case LoseLease(worker, epoch):
                return commands.LoseLease(self.run_id, worker, epoch)
            case Cancel():
                return commands.RequestCancel(self.run_id, ORG, USER)
            case Deadline():
                return commands.CancelDeadline(self.run_id)


def _bodies(call: Append) -> list[EventBody]:
    if call.finish:
        return [RunFinished(Outcome(call.finish), call.content)]
    return [Custom("test.element", {"content": call.content, "number": number}) for number in range(call.count)]


def _appended(applied: Applied) -> Appended:
    return Appended(applied.first_seq, applied.last_seq, applied.repeated)


def refused(refusal: Refusal) -> Refused:
    """A refusal as the model speaks of it."""
    told = {"seq_conflict": "current_seq", "stale_epoch": "current_epoch"}.get(refusal.reason)
    return Refused(refusal.reason, int(refusal.metadata[told]) if told else None)


def _seal(state: RunState, log_epoch: str) -> SignedReceipt:
    return SignedReceipt(state.run_id, b"{}", _KEY.sign(b"{}"), "test")
