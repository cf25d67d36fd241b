"""Following a run to its end: first its stored events, then new ones, live.

async with aclosing(RunTail(client, store, run_id).items()) as items:
    async for item in items:
        ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Protocol

from oa_client.core.log import AppliedLog
from oa_client.core.store import MAX_BATCH, Element, WatermarkStore
from oa_client.follow.items import Item, RunItems
from oa_client.follow.subscription import REPLACED, Subscription
from oa_client.follow.updates import Restarted
from oa_khala.frames import Cursor
from oa_khala.topics import run_events

_NOTHING = Element(0, b"")


class Subscribes(Protocol):
    """Makes subscriptions, as `oa_client.client.Client` does."""

    def subscription(self, store: WatermarkStore, *, max_batch: int = MAX_BATCH) -> Subscription:
        """Return a subscription that persists into `store`, at most `max_batch` elements in one transaction."""


class RunTail:
    """Follows one run. `log` is exactly the part of its log that is stored here."""

    def __init__(
        self,
        client: Subscribes,
        store: WatermarkStore,
        run_id: str,
        *,
        max_batch: int = MAX_BATCH,
        snapshots: bool = False,
    ) -> None:
        """Raises Refusal `invalid_topic` if `run_id` is not the id of a run.

        `snapshots`: if nothing is stored, or the stored log can't be continued, following begins with the run as it
        stands now (`Began`) in place of its events up to there. Without it every event comes, even if a snapshot is
        stored.
        """
        self._client = client
        self._store = store
        self._topic = run_events(run_id)
        self._max_batch = max_batch
        self._snapshots = snapshots
        self._items = RunItems(run_id)
        self.subscription: Subscription | None = None

    @property
    def log(self) -> AppliedLog:
        """Counts and chain head of the log that has been applied."""
        return self._items.log

    def ended(self) -> bool:
        """Whether the run's finish has been applied."""
        return self.log.finished

    async def items(self) -> AsyncGenerator[Item, None]:
        """Yield the stored items, then new ones, up to the run's finish.

        Raises Refusal if the topic can't be followed; EventsArchived if its events have left the log.
        """
        if not self._snapshots and next(self._store.elements(self._topic), _NOTHING).snapshot:
            self._store.drop(self._topic)
        began = self._store.cursor(self._topic)
        for element in self._store.elements(self._topic):
            yield self._items.stored(element)
        if self.ended():
            return
        async with self._client.subscription(self._store, max_batch=self._max_batch) as subscription:
            self.subscription = subscription
            cursor = await subscription.follow(self._topic, snapshots=self._snapshots)
            for item in self._stored_meanwhile(began, cursor):
                yield item
            if self.ended():
                return
            async with aclosing(subscription.updates()) as updates:
                async for update in updates:
                    for item in self._items.update(update):
                        yield item
                    if isinstance(update, Restarted):
                        for item in self._stored_up_to(update.cursor):
                            yield item
                    if self.ended():
                        return

    def _stored_meanwhile(self, began: Cursor | None, cursor: Cursor | None) -> Iterator[Item]:
        """Yield the items of what another process has stored since the elements of a store that stood at `began` were
        read: something else, or more. New items begin after the cursor."""
        if self.log.last_seq and not (
            began and cursor and cursor.epoch == began.epoch and cursor.applied_seq >= self.log.last_seq
        ):
            yield from self._items.update(Restarted(self._topic, REPLACED, cursor))
        yield from self._stored_up_to(cursor)

    def _stored_up_to(self, cursor: Cursor | None) -> Iterator[Item]:
        """Yield the items of stored elements that were not seen yet."""
        if cursor is None:
            return
        for element in self._store.elements(self._topic, self.log.last_seq):
            if element.seq <= cursor.applied_seq:
                yield self._items.stored(element)
