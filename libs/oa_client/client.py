"""A client of one site, put together: who signs in, asks, follows, and keeps what it learnt."""

from __future__ import annotations

from oa_client.auth import Auth, CredentialStore
from oa_client.commands import Commands
from oa_client.edge import Edge
from oa_client.follow.subscription import MAX_BATCH, Subscription
from oa_client.log import AppliedLog, fold
from oa_client.pins import PinStore, trusted_keys
from oa_client.store import WatermarkStore
from oa_client.transport import Http, Sockets
from oa_khala.topics import run_events
from oa_runlog.receipt import ReceiptFacts, SignedReceipt
from oa_runlog.verify import verify_receipt, verify_record

VERSION = "0.1.0"
"""Of the client, and of the whole project."""


class Client:
    """One person on one device at one control URL."""

    def __init__(
        self,
        control_url: str,
        *,
        http: Http,
        sockets: Sockets,
        credentials: CredentialStore,
        pins: PinStore,
        device_id: str,
        surface: str = "cli",
        khala_url: str = "",
    ) -> None:
        self.build_id = f"oa-{surface}/{VERSION}"
        self.edge = Edge(control_url, http, self.build_id)
        self.auth = Auth(self.edge, credentials, device_id)
        self.commands = Commands(self.edge, self.auth)
        self._sockets = sockets
        self._pins = pins
        self._surface = surface
        self._khala_url = khala_url

    @property
    def namespace(self) -> str:
        """What the watermarks of this person, org and device are kept under."""
        who = self.auth.credentials()
        return f"{who.user_id}/{who.org_id}/{self.auth.device_id}"

    def subscription(self, store: WatermarkStore, *, max_batch: int = MAX_BATCH) -> Subscription:
        """A subscription that persists into `store`, at most `max_batch` elements in one transaction."""
        return Subscription(
            self.auth.device_id,
            self.build_id,
            self.commands,
            self._sockets,
            store,
            surface=self._surface,
            khala_url=self._khala_url,
            max_batch=max_batch,
        )

    # ------------------------------------------------------------------------------------------------------ receipts

    async def pinned_keys(self, *, renew: bool = False) -> dict[str, bytes]:
        """The keys to check receipts with, pinned on first use. `renew` forgets the pins and trusts what is shown.

        Raises Refusal `unknown_key` when the site shows none of the pinned keys.
        """
        pinned = {} if renew else self._pins.load()
        trusted = trusted_keys(pinned, await self.commands.receipt_keys())
        if trusted != pinned:
            self._pins.save(trusted)
        return trusted

    async def verified_receipt(self, run_id: str) -> tuple[SignedReceipt, ReceiptFacts]:
        """The receipt of a run, its signature checked under the pinned keys."""
        receipt = await self.commands.receipt(run_id)
        return receipt, verify_receipt(receipt, await self.pinned_keys(), run_id=run_id)

    async def verified_record(self, run_id: str, store: WatermarkStore) -> tuple[SignedReceipt, ReceiptFacts]:
        """The receipt of a run, checked against the pinned keys and every event that `store` holds."""
        receipt = await self.commands.receipt(run_id)
        payloads = (element.payload for element in store.elements(run_events(run_id)))
        return receipt, verify_record(receipt, await self.pinned_keys(), payloads, run_id=run_id)


def applied_log(store: WatermarkStore, run_id: str) -> AppliedLog:
    """What `store` holds of a run."""
    return fold(run_id, store.elements(run_events(run_id)))
