"""The projector as a source of topics, for the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from services.projector.tests import histories as h
from services.projector.tests.doors import as_gateway
from services.projector.tests.rig import Rig


@dataclass
class ProjectorSource:
    """`oa_topics.tests.conformance.Source`: each event comes of a whole run of a user, whose topics end in `kind`."""

    rig: Rig
    stub: Any
    owner: str
    kind: str
    metadata: Any = field(default_factory=as_gateway)
    foreign: str = f"run:{h.ulid('run', 1)}:events"
    runs: int = 0

    @property
    def topics(self) -> tuple[str, str, str]:
        mine, another, third = (f"user:{user_id}:{self.kind}" for user_id in (h.USER, h.OTHER_USER, h.ulid("usr", 3)))
        return mine, another, third

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        user_id = topic.split(":")[1]
        spec = replace(h.SPEC, title="x" * size)
        events = []
        for _ in range(count):
            self.runs += 1
            events += h.history(self.runs, [h.created(user_id, spec=spec), h.started(), h.SUCCEEDED])
        await self.rig.apply(await self.rig.checkpoint(), events)

    async def lose(self, topic: str, seq: int) -> None:
        owner = await asyncpg.connect(self.owner)
        await owner.execute("DELETE FROM projection.journal WHERE topic = $1 AND seq = $2", topic, seq)
        await owner.close()
