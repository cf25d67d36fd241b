"""Topics, for a program that follows them: their updates, in order, each once."""

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
    """The kinds of updates of a topic."""

    EVENT = "event"
    """The next element."""
    SNAPSHOT = "snapshot"
    """The topic's whole state as of `seq`, in place of the previous state."""
    CAUGHT_UP = "caught_up"
    """Everything up to `seq`, the head when the topic was subscribed, has come. It is repeated after each reconnect."""
    RESTARTED = "restarted"
    """The previous state can't be continued: drop it. The topic follows from its start."""
    REFUSED = "refused"
    """The topic can't be followed, and no more updates of it come."""


@dataclass(frozen=True)
class TopicUpdate:
    """An update of a topic. `payload` is that of an event or a snapshot; docs/protocol/topics.md names its message.

    `cursor` is the cursor after it, as text: store it in one step with the state that you make from the element, and
    continue from there. `reason` says why the topic restarted, and `refusal` why it can't be followed.
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
        """The messages in an update of a list: one in an event, all in a snapshot, none in any other update."""
        if self.kind not in (UpdateKind.EVENT, UpdateKind.SNAPSHOT):
            return ()
        return documents(self.payload, snapshot=self.kind is UpdateKind.SNAPSHOT)


async def topic_updates(
    following: Subscribes, cursors: Mapping[str, str], *, snapshots: bool
) -> AsyncGenerator[TopicUpdate, None]:
    """Follow several topics over one connection; see `Client.topics`."""
    store = CursorStore({name: read_cursor(text) for name, text in cursors.items() if text})
    left = set(cursors)
    if not left:
        return
    async with following.subscription(store) as subscription:
        for name in cursors:
            await subscription.follow(name, snapshots=snapshots)
        try:
            async with aclosing(subscription.updates()) as updates:
                async for update in updates:
                    if isinstance(update, Connection):
                        continue
                    yield _told(update)
                    if isinstance(update, Refused):
                        left.discard(update.topic)
                        if not left:
                            return
        except Refusal as refusal:
            if refusal.field != "topics":
                raise
            for name in sorted(left):  # without a topic there is no token, and nobody to report them one by one
                yield _told(Refused(name, refusal))


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
