"""Topics, for a program that follows them: what happens there, in order, each once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from oa_base.refusal import Refusal
from oa_client.core.cursors import read_cursor, write_cursor
from oa_client.core.store import CursorStore
from oa_client.core.wire import documents
from oa_client.follow.run_tail import Subscribes
from oa_client.follow.updates import Applied, CaughtUp, Connection, Refused, Restarted, Update


class UpdateKind(StrEnum):
    """What can happen to a topic."""

    EVENT = "event"
    """The next element."""
    SNAPSHOT = "snapshot"
    """The topic's whole state as of `seq`, in place of what was there."""
    CAUGHT_UP = "caught_up"
    """All up to `seq` has come, the head when the topic was subscribed. It is said after each reconnect, too."""
    RESTARTED = "restarted"
    """What came before can't be continued: drop what was made of it. The topic follows from its start."""
    REFUSED = "refused"
    """The topic can't be had, and nothing more comes of it."""


@dataclass(frozen=True)
class TopicUpdate:
    """What has happened to a topic. `payload` is of an event or a snapshot; docs/protocol/topics.md names its message.

    `cursor` is the place after it, as a text: store it in one step with what you make of the element, and go on there.
    `reason` says why the topic restarted, and `refusal` why it can't be had.
    """

    topic: str
    kind: UpdateKind
    seq: int = 0
    payload: bytes = b""
    cursor: str = ""
    reason: str = ""
    refusal: Refusal | None = None

    @property
    def documents(self) -> tuple[bytes, ...]:
        """Of a list: the messages that it tells of, one of an event and all of a snapshot; none of anything else."""
        if self.kind not in (UpdateKind.EVENT, UpdateKind.SNAPSHOT):
            return ()
        return documents(self.payload, snapshot=self.kind is UpdateKind.SNAPSHOT)


async def topic_updates(
    following: Subscribes, cursors: Mapping[str, str], *, snapshots: bool
) -> AsyncGenerator[TopicUpdate, None]:
    """Follow several topics over one connection; see `Client.topics`."""
    store = CursorStore({name: read_cursor(text) for name, text in cursors.items() if text})
    left = set(cursors)
    async with following.subscription(store) as subscription:
        for name in cursors:
            await subscription.follow(name, snapshots=snapshots)
        async with aclosing(subscription.updates()) as updates:
            async for update in updates:
                if isinstance(update, Connection):
                    continue
                yield _told(update)
                if isinstance(update, Refused):
                    left.discard(update.topic)
                    if not left:
                        return


def _told(update: Update) -> TopicUpdate:
    match update:
        case Applied(topic, cursor, payload, snapshot):
            kind = UpdateKind.SNAPSHOT if snapshot else UpdateKind.EVENT
            return TopicUpdate(topic, kind, cursor.applied_seq, payload, write_cursor(cursor))
        case CaughtUp(topic, seq):
            return TopicUpdate(topic, UpdateKind.CAUGHT_UP, seq)
        case Restarted(topic, reason):
            return TopicUpdate(topic, UpdateKind.RESTARTED, reason=reason)
        case Refused(topic, refusal):
            return TopicUpdate(topic, UpdateKind.REFUSED, reason=refusal.reason, refusal=refusal)
        case Connection():
            raise AssertionError("a connection is of no topic")
