"""Operations on runs, for people. Owner and org are the principal's. A run of another org does not exist for them."""

from __future__ import annotations

from oa_base.identity import Principal
from oa_runlog.authority.checks import not_found
from oa_runlog.authority.commands import CreateRun, RequestCancel, SendInput
from oa_runlog.events import ExecSpec, RunSpec, ThreadPolicy
from oa_runlog.stdin import check_is_heard
from services.runtime.agents.app import Agents
from services.runtime.log.app.log import Create, Log
from services.runtime.log.app.ports import RunReader
from services.runtime.log.app.run_ids import new_run_id
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.threads.app import Threads


class Runs:
    """Creates, shows and cancels runs, and sends input to them."""

    def __init__(self, log: Log, create: Create, reader: RunReader, agents: Agents, threads: Threads) -> None:
        self._log = log
        self._create = create
        self._reader = reader
        self._agents = agents
        self._threads = threads

    async def create(self, principal: Principal, idempotency_key: str, spec: RunSpec) -> tuple[RunRecord, bool]:
        """Create a run; return it, and whether it existed before. Raises Refusal.

        `idempotency_conflict`, `payload_too_large`, `invalid_value` for a retention class that does not exist and for
        an input that no worker would take, `thread_busy` for a busy thread in which the run was not to wait.
        """
        run_id = new_run_id(principal.org_id, principal.subject, idempotency_key, self._log.partitions)
        fault = await self._agents.fault(principal.org_id, spec)
        command = CreateRun.of(run_id, principal.org_id, principal.subject, spec, idempotency_key, fault)
        applied = await self._create(command)
        if spec.thread_policy is ThreadPolicy.INTERRUPT:
            self._threads.look_soon()
        if applied.repeated or applied.state is None:
            return await self._existing(applied.run_id), applied.repeated
        return RunRecord(applied.state, command.spec), False

    async def get(self, principal: Principal, run_id: str) -> RunRecord:
        """A run. Raises Refusal not_found."""
        run = await self._reader.run(run_id)
        if run is None or run.state.org_id != principal.org_id:
            raise not_found()
        return run

    async def cancel(self, principal: Principal, run_id: str, reason: str) -> RunRecord:
        """Cancel a run; return it, canceling or ended. Raises Refusal not_found."""
        await self._log.do(RequestCancel(run_id, principal.org_id, principal.subject, reason))
        return await self._existing(run_id)

    async def send(self, principal: Principal, run_id: str, idempotency_key: str, input_json: str) -> Applied:
        """Send input to a run; `first_seq` is the input's.

        Raises Refusal not_found, `invalid_value` for input that is not JSON text, for a run that takes no input, and
        for input that means nothing to a command's standard input or terminal;
        payload_too_large, invalid_transition for a run that is ending, idempotency_conflict.
        """
        run = await self.get(principal, run_id)
        if isinstance(run.spec.input, ExecSpec):
            check_is_heard(run.spec.input, input_json)
        command = SendInput.of(run_id, principal.org_id, principal.subject, idempotency_key, input_json)
        return await self._log.do(command)

    async def _existing(self, run_id: str) -> RunRecord:
        run = await self._reader.run(run_id)
        if run is None:
            raise not_found()
        return run
