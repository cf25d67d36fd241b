"""Checkpoints: an agent saves how far it has come, for the worker that takes the run over. The newest one counts."""

from __future__ import annotations

import asyncio

from oa_base.refusal import Refusal
from oa_worker.agents.limits import AgentLimits
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

_TYPE = "checkpoint.saved"


class Checkpoints:
    """The checkpoints of one run on this worker."""

    def __init__(self, assignment: Assignment, append: Emit, limits: AgentLimits) -> None:
        self._assignment = assignment
        self._append = append
        self._limits = limits
        self._newest: pb.CheckpointSaved | None = None
        self._is_read = assignment.attempt <= 1  # nothing was saved before the first attempt
        self._one_at_a_time = asyncio.Lock()

    async def save(self, state_json: str) -> int:
        """Store a checkpoint, and return its number once it is stored. Raises Refusal `payload_too_large`."""
        size, max_bytes = len(state_json.encode()), self._limits.max_checkpoint_bytes
        if size > max_bytes:
            message = f"what is to be saved has {size} bytes; save at most {max_bytes}, or where it is stored"
            raise Refusal("payload_too_large", message, field="state_json")
        async with self._one_at_a_time:
            newest = await self._read()
            saved = pb.CheckpointSaved(number=newest.number + 1 if newest else 1, state_json=state_json)
            await self._append(pb.EventBody(checkpoint_saved=saved))
            self._newest = saved
        await self._assignment.stored()
        return saved.number

    async def newest(self) -> str | None:
        """Return the state that was saved last, by this worker or an earlier one; None if none was saved."""
        async with self._one_at_a_time:
            newest = await self._read()
        return None if newest is None else newest.state_json

    async def _read(self) -> pb.CheckpointSaved | None:
        if not self._is_read:
            event = await self._assignment.newest(_TYPE)
            self._newest = None if event is None else event.body.checkpoint_saved
            self._is_read = True
        return self._newest
