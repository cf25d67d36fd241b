"""Checks the inputs of new runs against the schemas that present workers have stated."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from oa_base.refusal import Refusal
from oa_runlog.events import ExecSpec, RunSpec
from services.runtime.agents.domain import input_fault

MAX_AGE_S = 1.0
"""How long a schema that was read is enough to accept inputs."""
MAX_SCHEMAS = 1_000
"""Maximum number of schemas that are remembered."""


class InputSchemas(Protocol):
    """The schemas that workers have stated for their agents."""

    async def input_schema(self, org_id: str, adapter: str) -> str:
        """The newest worker's input schema; empty if there is no worker, or if one of them states none."""
        ...


class Agents:
    """Finds inputs that a worker would refuse anyway.

    A schema that was read a moment ago is enough to accept an input, but not to refuse one. So the schema of a worker
    that has just attached to another replica may not count yet: such a run ends like one that was created before the
    worker came.
    """

    def __init__(self, schemas: InputSchemas, now_s: Callable[[], float] = time.monotonic) -> None:
        self._schemas = schemas
        self._now_s = now_s
        self._read: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        """Org and adapter -> when its schema was read, and the schema; the newest at the end."""

    def forget(self) -> None:
        """Forget all schemas, because a worker has stated the schemas of its agents."""
        self._read.clear()

    async def fault(self, org_id: str, spec: RunSpec) -> Refusal | None:
        """Why no worker of the org would take the input. Without a worker, a run may wait for one with any input."""
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
