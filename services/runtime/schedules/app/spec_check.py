"""Whether a run of a schedule's spec could be created now."""

from __future__ import annotations

from datetime import datetime

from oa_base.clock import ns_of
from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.commands import CreateRun
from oa_runlog.authority.decide import decide
from oa_runlog.authority.limits import RunLimits
from services.runtime.agents.app import Agents


class SpecCheck:
    """Decides about a run as the log does, and creates none. It does not look at the run's thread."""

    def __init__(self, agents: Agents, run_limits: RunLimits) -> None:
        self._agents = agents
        self._run_limits = run_limits

    async def check(self, owner: Principal, spec: bytes, now: datetime) -> None:
        """Raise the refusal that a run of the encoded spec would get now."""
        read = wire.decode_spec(spec)
        fault = await self._agents.fault(owner.org_id, read)
        command = CreateRun.of("", owner.org_id, owner.subject, read, "", fault)
        decision = decide(None, command, self._run_limits, ns_of(now))
        if isinstance(decision, Refusal):
            raise decision
