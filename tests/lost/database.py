"""The database of the model: rows of workers, leases decided by `oa_runlog`, outages, a clock that steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, AssignRun, Command, CreateRun, LoseLease
from oa_runlog.authority.decide import Accepted, decide
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import ExecSpec, RunSpec, TextDelta, TextStream
from oa_runlog.state import RunState
from oa_runlog.workers import WorkerStatus
from services.runtime.log.domain.records import RunRecord
from services.runtime.workers.app.ports import LeaseRecord, Seen, WorkerRecord
from services.runtime.workers.domain.vigil import SignOfLife

ORG = "org_1"
SPEC = RunSpec("exec", ExecSpec(("true",)))
LIMITS = RunLimits(events_per_second=1_000_000, burst_events=1_000_000, max_requeues=1_000)
_LIVE = (WorkerStatus.STARTING, WorkerStatus.RUNNING, WorkerStatus.DRAINING)


@dataclass(frozen=True)
class Row:
    """A worker as it is stored."""

    worker: WorkerRecord
    status: WorkerStatus
    attachment: str
    beat: float
    replica_id: str

    @property
    def sign(self) -> SignOfLife:
        """Its last sign of life."""
        return SignOfLife(self.worker.worker_id, self.attachment, self.beat, self.replica_id)


@dataclass
class Database:
    """All rows, and what may happen to them."""

    is_away: bool = False
    clock_ahead_s: float = 0.0
    rows: dict[str, Row] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    runs: dict[str, RunState] = field(default_factory=dict)
    on_lost: Callable[[str], None] = lambda worker_id: None
    """Called when a worker is marked."""
    written: list[tuple[str, int, str]] = field(default_factory=list)
    """Run, lease epoch and worker of each write that was accepted."""

    @property
    def now_s(self) -> float:
        """What its clock says."""
        return asyncio.get_running_loop().time() + self.clock_ahead_s

    def copy(self) -> tuple[dict[str, Row], dict[str, int]]:
        """What a standby has now of the workers and replicas."""
        return dict(self.rows), dict(self.looks)

    def fail_over(self, standby: tuple[dict[str, Row], dict[str, int]]) -> None:
        """Go on with what a standby had some time ago."""
        rows, looks = standby
        self.rows, self.looks = dict(rows), dict(looks)

    def do(self, command: Command) -> RunState:
        """Decide a command as the sequencer does, on the state of now. Raises Refusal."""
        self.check()
        state = self.runs.get(command.run_id)
        decision = decide(state, command, LIMITS, int(self.now_s * 1e9) + 10**18)
        if isinstance(decision, Refusal):
            raise decision
        if isinstance(decision, Accepted):
            self.runs[command.run_id] = decision.state
        return self.runs[command.run_id]

    def create(self, run_id: str) -> None:
        """A run that waits."""
        self.do(CreateRun.of(run_id, ORG, "usr_1", SPEC, run_id))

    def write(self, run_id: str, epoch: int, worker_id: str) -> bool:
        """An append; whether it was accepted."""
        key = f"k{len(self.written)}"
        body = TextDelta(TextStream.STDOUT, b"x")
        try:
            self.do(Append.of(run_id, ORG, worker_id, epoch, key, (body,)))
        except Refusal:
            return False
        self.written.append((run_id, epoch, worker_id))
        return True

    def check(self) -> None:
        """Raises Refusal while it is away."""
        if self.is_away:
            raise Refusal("unavailable", "the database is away; try again")


class Log:
    """What workers need of the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def do(self, command: AssignRun | LoseLease) -> RunState:
        """Carry out a command."""
        return self._database.do(command)

    async def run(self, run_id: str) -> RunRecord:
        """A run."""
        self._database.check()
        return RunRecord(self._database.runs[run_id], SPEC)


class Store:
    """The worker store of one replica. Its process may stand still before every statement."""

    def __init__(self, database: Database, replica_id: str, running: asyncio.Event) -> None:
        self._database = database
        self._replica_id = replica_id
        self._running = running

    async def _ask(self) -> Database:
        await self._running.wait()
        self._database.check()
        return self._database

    async def worker(self, worker_id: str) -> WorkerRecord | None:
        row = (await self._ask()).rows.get(worker_id)
        return None if row is None else replace(row.worker, status=row.status)

    async def add_worker(self, worker: WorkerRecord, attachment: str) -> None:
        database = await self._ask()
        database.rows[worker.worker_id] = Row(worker, worker.status, attachment, database.now_s, self._replica_id)

    async def reattach_worker(self, worker: WorkerRecord, before: WorkerStatus, attachment: str) -> bool:
        database = await self._ask()
        row = database.rows.get(worker.worker_id)
        if row is None or row.status is not before:
            return False
        await self.add_worker(worker, attachment)
        return True

    async def look(self, attached: Mapping[str, str], heard: Mapping[str, str], *, accepts: bool) -> Seen:
        database = await self._ask()
        for worker_id, attachment in heard.items():
            row = database.rows.get(worker_id)
            if row is not None and row.attachment == attachment and row.status in _LIVE:
                database.rows[worker_id] = replace(row, status=WorkerStatus.RUNNING, beat=database.now_s)
        if accepts:
            database.looks[self._replica_id] = database.looks.get(self._replica_id, -1) + 1
        rows = database.rows.values()
        stay = {(row.worker.worker_id, row.attachment) for row in rows if row.status is not WorkerStatus.LOST}
        left = {one: attachment for one, attachment in attached.items() if (one, attachment) not in stay}
        return Seen(dict(database.looks), [row.sign for row in rows if row.status in _LIVE], left)

    async def lose_workers(self, silent: Sequence[SignOfLife]) -> list[str]:
        database = await self._ask()
        lost = [
            sign.worker_id
            for sign in silent
            if (row := database.rows.get(sign.worker_id)) is not None and row.sign == sign and row.status in _LIVE
        ]
        for worker_id in lost:
            database.rows[worker_id] = replace(database.rows[worker_id], status=WorkerStatus.LOST)
            database.on_lost(worker_id)
        return lost

    async def forget_replicas(self, absent: Mapping[str, int]) -> None:
        database = await self._ask()
        for replica_id, looks in absent.items():
            if database.looks.get(replica_id) == looks:
                del database.looks[replica_id]

    async def leases_of_ended_workers(self, limit: int, _left_out: object) -> list[LeaseRecord]:
        database = await self._ask()
        ended = {worker_id for worker_id, row in database.rows.items() if row.status not in _LIVE}
        return [lease for worker_id in ended for lease in _leases(database, worker_id)][:limit]

    async def leases_of(self, worker_id: str) -> list[LeaseRecord]:
        return _leases(await self._ask(), worker_id)

    async def canceling_runs(self) -> list[str]:
        await self._ask()
        return []

    async def overdue_runs(self, _limit: int, _left_out: object) -> list[str]:
        await self._ask()
        return []


def _leases(database: Database, worker_id: str) -> list[LeaseRecord]:
    held = [state for state in database.runs.values() if state.is_leased and state.worker_id == worker_id]
    return [LeaseRecord(state.run_id, worker_id, state.lease_epoch) for state in held]
