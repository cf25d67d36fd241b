"""A client of one site, assembled from its parts: sign-in, commands, subscriptions, and stores."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from oa_base.version import VERSION
from oa_client.core.log import AppliedLog, fold
from oa_client.core.store import MAX_BATCH, WatermarkStore
from oa_client.edge.api_keys import ApiKeyAccess
from oa_client.edge.auth import Auth, CredentialStore
from oa_client.edge.calls import Edge
from oa_client.edge.commands import Commands
from oa_client.proofs.pins import PinStore
from oa_client.proofs.receipt_log import CheckpointStore
from oa_client.transport import Http, Sockets
from oa_khala.topics import run_events

# The modules that follow and prove runs are loaded on first use, because most commands of a person do neither.
if TYPE_CHECKING:
    from oa_client.follow.subscription import Subscription
    from oa_client.proofs.run_proofs import RunProofs


class Client:
    """One person on one device, or the owner of an API key, at one control URL."""

    def __init__(
        self,
        control_url: str,
        *,
        http: Http,
        sockets: Sockets,
        credentials: CredentialStore,
        pins: PinStore,
        checkpoints: CheckpointStore,
        device_id: str,
        surface: str = "cli",
        khala_url: str = "",
        api_key: str = "",
    ) -> None:
        """With `api_key`, commands run as the key's owner, not as the person who is signed in here."""
        self.build_id = f"oa-{surface}/{VERSION}"
        self.edge = Edge(control_url, http, self.build_id)
        self.auth = Auth(self.edge, credentials, device_id)
        self._service_account = ApiKeyAccess(self.edge, lambda: api_key) if api_key else None
        self.commands = Commands(self.edge, self._service_account or self.auth)
        self._sockets = sockets
        self._surface = surface
        self._khala_url = khala_url
        self._pins = pins
        self._checkpoints = checkpoints

    @cached_property
    def proofs(self) -> RunProofs:
        """Receipts, and what they prove."""
        from oa_client.proofs.run_proofs import RunProofs

        return RunProofs(self.commands, self, self._pins, self._checkpoints)

    @property
    def namespace(self) -> str:
        """The name under which this machine stores the data of this person, org and device, or of this API key."""
        if self._service_account is not None:
            return f"{self._service_account.namespace}/{self.auth.device_id}"
        who = self.auth.credentials()
        return f"{who.user_id}/{who.org_id}/{self.auth.device_id}"

    def subscription(
        self, store: WatermarkStore, *, max_batch: int = MAX_BATCH, grants: Collection[str] = ()
    ) -> Subscription:
        """A subscription that persists into `store`, at most `max_batch` elements in one transaction.

        `grants`: see `Subscription`; `oa_khala.grants.runs_of` makes one.
        """
        from oa_client.follow.subscription import Subscription

        return Subscription(
            self.auth.device_id,
            self.build_id,
            self.commands,
            self._sockets,
            store,
            surface=self._surface,
            khala_url=self._khala_url,
            max_batch=max_batch,
            grants=grants,
        )


def applied_log(store: WatermarkStore, run_id: str) -> AppliedLog:
    """Return the log of a run as `store` holds it."""
    return fold(run_id, store.elements(run_events(run_id)))
