"""All topics of a client session: which of them to ask for, and when."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator

from oa_khala.client.commands import Chains, ClientLimits, TopicFailed
from oa_khala.client.deadlines import NEVER
from oa_khala.client.topics import ClientTopic, Counts, Phase
from oa_khala.frames import Cursor, Subscribe

_CARRIED = frozenset({Phase.ASKED, Phase.FOLLOWING, Phase.AWAITING_SNAPSHOT})
_REFUSED = {
    "invalid_topic": "there is no topic of this form",
    "too_many_topics": "a client may not follow more topics; leave another one first, or follow it with another client",
}


class Subscriptions:
    """The topics by name. A failed topic stays, so that it isn't tried again, until it is followed anew."""

    def __init__(self, limits: ClientLimits, chains: Chains) -> None:
        self.counts = Counts()
        self._limits = limits
        self._chains = chains
        self._topics: dict[str, ClientTopic] = {}

    def follow(self, name: str, cursor: Cursor | None, takes_snapshots: bool = False) -> bool:
        """Follow one more topic, from `cursor` on. False when it is already followed."""
        known = self._topics.get(name)
        if known is not None and known.phase is not Phase.FAILED:
            return False
        limit = self._limits.max_snapshot_bytes
        self._topics[name] = ClientTopic(name, cursor, self._chains, takes_snapshots, limit, self.counts)
        return True

    def unfollow(self, name: str) -> bool:
        """Forget the topic. False when a gateway has nothing to end: the topic was not followed, or had failed."""
        known = self._topics.pop(name, None)
        return known is not None and known.phase is not Phase.FAILED

    def get(self, name: str) -> ClientTopic | None:
        """Return the topic; None when it is not followed."""
        return self._topics.get(name)

    @property
    def names(self) -> Collection[str]:
        """Names of all topics."""
        return self._topics.keys()

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the topics that need a token."""
        return frozenset(topic.name for topic in self._topics.values() if topic.phase is not Phase.FAILED)

    @property
    def carried(self) -> Collection[str]:
        """Names of the topics that the current connection carries, or has been asked to carry."""
        return [topic.name for topic in self._topics.values() if topic.phase in _CARRIED]

    def lacking(self, names: Iterable[str], granted: Container[str]) -> bool:
        """Whether one of `names` waits to be asked for but is not in `granted`."""
        return any(topic.name not in granted for topic in self._idle(names))

    def requests(self, names: Iterable[str], granted: Container[str]) -> Iterator[Subscribe]:
        """Yield the frames that ask for those of `names` that wait for it and are granted."""
        ready = [topic for topic in self._idle(names) if topic.name in granted]
        size = self._limits.subscribe_batch
        for start in range(0, len(ready), size):
            batch = ready[start : start + size]
            takes = tuple(topic.name for topic in batch if topic.takes_snapshots)
            yield Subscribe(tuple((topic.name, topic.cursor) for topic in batch), takes)
            for topic in batch:
                topic.asked()

    def refuse(self, name: str, reason: str) -> list[TopicFailed]:
        """Fail the topic `name`, which control does not grant, or which is one too many."""
        topic = self._topics.get(name)
        if topic is None or topic.phase is Phase.FAILED:
            return []
        topic.phase = Phase.FAILED
        return [TopicFailed(name, reason, _REFUSED.get(reason, "the token does not grant this topic"))]

    @property
    def retry_at_ms(self) -> int:
        """When the first waiting topic is asked for again."""
        return min((topic.retry_at_ms for topic in self._waiting()), default=NEVER)

    def wake(self, now_ms: int) -> list[str]:
        """Return the topics whose wait is over; they can be asked for again."""
        due = [topic for topic in self._waiting() if now_ms >= topic.retry_at_ms]
        for topic in due:
            topic.phase = Phase.IDLE
        return [topic.name for topic in due]

    def cut(self) -> None:
        """Note for all topics that the connection is gone."""
        for topic in self._topics.values():
            topic.cut()

    def _idle(self, names: Iterable[str]) -> list[ClientTopic]:
        return [topic for topic in map(self._topics.__getitem__, names) if topic.phase is Phase.IDLE]

    def _waiting(self) -> list[ClientTopic]:
        return [topic for topic in self._topics.values() if topic.phase is Phase.WAITING]
