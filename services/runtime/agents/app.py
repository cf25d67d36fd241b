"""Inputs of new runs, held against what the workers that are there say that they take."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from oa_base.refusal import Refusal
from oa_runlog.events import ExecSpec, RunSpec
from services.runtime.agents.domain import input_fault

MAX_AGE_S = 1.0
"""How long an input is taken by a schema that was read before."""
MAX_SCHEMAS = 1_000
"""Schemas that are remembered."""


class InputSchemas(Protocol):
    """What workers said of their agents."""

    async def input_schema(self, org_id: str, adapter: str) -> str:
        """The newest worker's input schema; empty when there is no worker, or one of them states none."""
        ...


class Agents:
    """Knows which inputs would be refused by a worker anyway.

    A schema that was read a moment ago is enough to take an input, and none to refuse one. So what a worker said that
    attached to another replica just now may not count yet: such a run ends as one that was created before it came.
    """

    def __init__(self, schemas: InputSchemas, now_s: Callable[[], float] = time.monotonic) -> None:
        self._schemas = schemas
        self._now_s = now_s
        self._read: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        """Org and adapter -> when its schema was read, and the schema; the newest at the end."""

    def forget(self) -> None:
        """A worker has said what its agents take."""
        self._read.clear()

    async def fault(self, org_id: str, spec: RunSpec) -> Refusal | None:
        """Why no worker of the org would take the input. Where no worker is, a run may wait for one with any input."""
        if isinstance(spec.input, ExecSpec):
            return None
        name = org_id, spec.adapter
        read_s, known = self._read.get(name, (-MAX_AGE_S, ""))
        if self._now_s() - read_s < MAX_AGE_S and _fault(spec, known) is None:
            return None
        return _fault(spec, await self._schema(name))

    async def _schema(self, name: tuple[str, str]) -> str:
        now_s = self._now_s()
        schema = await self._schemas.input_schema(*name)
        self._read[name] = now_s, schema
        self._read.move_to_end(name)
        if len(self._read) > MAX_SCHEMAS:
            self._read.popitem(last=False)
        return schema


def _fault(spec: RunSpec, schema: str) -> Refusal | None:
    return input_fault(spec, schema) if schema else None
