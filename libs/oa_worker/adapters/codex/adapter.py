"""The built-in adapter "codex": one turn of a Codex thread is one run.

It is an agent (`oa_worker.agents`) with typed input and result, whose work is done by a real `codex app-server`: a
process of its own for each run, which ends with the run, whatever happens. docs/codex.md says what a person sees.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from oa_wire.shapes import Shape
from oa_worker.adapters.codex.inputs import SANDBOXES, CodexResult, CodexTurn, Sandbox
from oa_worker.adapters.codex.limits import DEFAULT_CODEX_LIMITS, CodexLimits
from oa_worker.adapters.codex.turn import Turn
from oa_worker.adapters.exec.environment import without_settings
from oa_worker.agents.adapter import AgentAdapter, Handler
from oa_worker.agents.failures import AgentFailure
from oa_worker.agents.limits import DEFAULT_AGENT_LIMITS
from oa_worker.agents.run import Run
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1.event_pb2 import RunFinished

_ARGUMENTS = (
    "app-server",
    # Commands of Codex must not see what looks like a secret: the key of the model's provider is beside it.
    "-c",
    "shell_environment_policy.ignore_default_excludes=false",
)
_DESCRIPTION = "One turn of a Codex thread, in a folder on the worker's machine."


@dataclass(frozen=True)
class CodexSettings:
    """Settings by the person who runs the worker. All others are Codex's own: config.toml in CODEX_HOME."""

    program: str = "codex"
    """Name or path of Codex."""
    widest_sandbox: Sandbox = "workspace-write"
    """The widest sandbox that a run may ask for."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The worker's environment. Codex gets it without the worker's own settings (`OA_…`), which contain secrets."""


class CodexAdapter:
    """Takes turns of Codex."""

    name = "codex"

    def __init__(self, settings: CodexSettings | None = None, limits: CodexLimits = DEFAULT_CODEX_LIMITS) -> None:
        self._settings = settings or CodexSettings()
        self._limits = limits
        self._shapes = Shape(CodexTurn, "validation"), Shape(CodexResult, "serialization")
        self.agent = self._as_agent(_nothing).agent
        """What the authority is told about it: the types of its input and result."""

    async def run(self, assignment: Assignment, emit: Emit) -> RunFinished:
        """Take the turn; see `Adapter.run`."""
        environment = without_settings(self._settings.environment)
        turn = Turn(assignment, emit, (self._settings.program, *_ARGUMENTS), environment, self._limits)

        async def take(run: Run[CodexTurn]) -> CodexResult:
            self._check_sandbox(run.input.sandbox)
            return await turn.take(run)

        return await self._as_agent(take).run(assignment, emit)

    def _as_agent(self, handler: Handler[CodexTurn, CodexResult]) -> AgentAdapter[CodexTurn, CodexResult]:
        return AgentAdapter(self.name, handler, self._shapes, _DESCRIPTION, DEFAULT_AGENT_LIMITS)

    def _check_sandbox(self, asked: Sandbox) -> None:
        widest = self._settings.widest_sandbox
        if SANDBOXES.index(asked) > SANDBOXES.index(widest):
            message = f"this worker gives a run at most the sandbox {widest!r}; ask for that, or for less"
            raise AgentFailure("sandbox_not_allowed", message)


async def _nothing(run: Run[CodexTurn]) -> CodexResult:
    """Never called. An agent's types have to be known before it has a run."""
    return CodexResult("", "", "")
