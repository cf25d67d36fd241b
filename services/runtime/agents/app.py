"""Inputs of new runs, held against what the workers that are there say that they take."""

from __future__ import annotations

from typing import Protocol

from oa_base.refusal import Refusal
from oa_runlog.events import ExecSpec, RunSpec
from services.runtime.agents.domain import input_fault


class InputSchemas(Protocol):
    """What workers said of their agents."""

    async def input_schema(self, org_id: str, adapter: str) -> str:
        """The newest worker's input schema; empty when there is no worker, or one of them states none."""
        ...


class Agents:
    """Knows which inputs would be refused by a worker anyway."""

    def __init__(self, schemas: InputSchemas) -> None:
        self._schemas = schemas

    async def fault(self, org_id: str, spec: RunSpec) -> Refusal | None:
        """Why no worker of the org would take the input. Where no worker is, a run may wait for one with any input."""
        if isinstance(spec.input, ExecSpec):
            return None
        schema = await self._schemas.input_schema(org_id, spec.adapter)
        return input_fault(spec, schema) if schema else None
