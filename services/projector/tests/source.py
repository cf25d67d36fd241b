"""The projector as a source of topics, for the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from oa_khala.topics import Topic, TopicClass
from services.projector.tests import histories as h
from services.projector.tests.doors import as_gateway
from services.projector.tests.rig import Rig


@dataclass
class ProjectorSource:
    """`oa_topics.tests.conformance.Source`: each event comes of a whole run of a topic's owner."""

    rig: Rig
    stub: Any
    owner: str
    topic_class: TopicClass
    metadata: Any = field(default_factory=as_gateway)
    foreign: str = f"run:{h.ulid('run', 1)}:events"
    runs: int = 0

    @property
    def topics(self) -> tuple[str, str, str]:
        of_people = self.topic_class.id_prefix == "usr_"
        owners = (h.USER, h.OTHER_USER, h.ulid("usr", 3)) if of_people else (h.ORG, h.OTHER_ORG, h.ulid("org", 3))
        first, second, third = (str(Topic(self.topic_class, owner_id)) for owner_id in owners)
        return first, second, third

    async def commit(self, topic: str, count: int, size: int = 0) -> None:
        owner_id = topic.split(":")[1]
        user_id, org_id = (owner_id, h.ORG) if self.topic_class.id_prefix == "usr_" else (h.USER, owner_id)
        spec = replace(h.SPEC, title="x" * size)
        events = []
        for _ in range(count):
            self.runs += 1
            events += h.history(self.runs, [h.created(user_id, org_id, spec), h.started(), h.SUCCEEDED])
        await self.rig.apply(await self.rig.checkpoint(), events)

    async def lose(self, topic: str, seq: int) -> None:
        owner = await asyncpg.connect(self.owner)
        await owner.execute("DELETE FROM projection.journal WHERE topic = $1 AND seq = $2", topic, seq)
        await owner.close()
