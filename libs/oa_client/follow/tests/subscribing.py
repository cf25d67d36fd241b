"""A subscription for tests, with updates that they give."""

from __future__ import annotations

from oa_client.core.store import MAX_BATCH, WatermarkStore
from oa_client.cpython.network import WebSockets
from oa_client.follow.subscription import Subscription
from oa_client.follow.tests.fake_gateway import FakeTokens


class Subscribing:
    """A client whose gateway is `url`; `batches` are the sizes that were asked for."""

    def __init__(self, url: str, refused: tuple[tuple[str, str], ...] = ()) -> None:
        self.batches: list[int] = []
        self._tokens = FakeTokens(url, refused=refused)

    def subscription(self, store: WatermarkStore, *, max_batch: int = MAX_BATCH) -> Subscription:
        self.batches.append(max_batch)
        return Subscription("dev_01JD8V0000000000000000000A", "oa-test/0", self._tokens, WebSockets(), store)
