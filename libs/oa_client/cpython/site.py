"""A client of one site on CPython: httpx, websockets, files, SQLite."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

from oa_base.environment import check_khala_url
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.cpython.files import ClientHome, FileCredentialStore, one_at_a_time, read_json, write_private_json
from oa_client.cpython.network import HttpxHttp, WebSockets
from oa_client.cpython.sqlite_store import SqliteStore
from oa_client.proofs.pins import have_their_ids
from oa_runlog.proof.audit import AuditHead, read_audit_head
from oa_wire.strict.text import read_base64


class FilePins:
    """A PinStore in `receipt-keys.json` of a site's folder, keys in base64."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "receipt-keys.json"

    def load(self) -> dict[str, bytes]:
        """See PinStore."""
        return read_keys(self._path)

    def save(self, keys: Mapping[str, bytes]) -> None:
        """See PinStore."""
        write_private_json(self._path, {key_id: base64.b64encode(key).decode() for key_id, key in keys.items()})


class FileCheckpoints:
    """A CheckpointStore in `receipt-log.json` of a site's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "receipt-log.json"

    def load(self) -> bytes | None:
        """See CheckpointStore."""
        if not self._path.exists():
            return None
        note = (read_json(self._path) or {}).get("checkpoint")
        if not isinstance(note, str):
            raise _unreadable("checkpoint_malformed", self._path)
        return note.encode()

    def save(self, note: bytes) -> None:
        """See CheckpointStore."""
        write_private_json(self._path, {"checkpoint": note.decode()})

    def forget(self) -> None:
        """See CheckpointStore."""
        self._path.unlink(missing_ok=True)

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """See CheckpointStore."""
        return one_at_a_time(self._path.with_suffix(".lock"))


class FileAuditHeads:
    """AuditHeads in `audit-heads.json` of a site's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit-heads.json"

    def load(self) -> dict[str, AuditHead]:
        """See AuditHeads. Raises Refusal `checkpoint_malformed` for a file that makes no sense."""
        kept = read_json(self._path) if self._path.exists() else {}
        try:
            if kept is None:
                raise ValueError("no JSON object")
            return {org_id: read_audit_head(str(text)) for org_id, text in kept.items()}
        except ValueError:
            message = f"{self._path} can't be read, so nothing is proved; remove it to trust the site anew"
            raise Refusal("checkpoint_malformed", message) from None

    async def keep(self, org_id: str, head: AuditHead, compared: AuditHead | None) -> AuditHead | None:
        """See AuditHeads."""
        async with one_at_a_time(self._path.with_suffix(".lock")):
            kept = self.load()
            newest = kept.get(org_id)
            if newest is not None and newest != compared:
                return newest
            if newest is None or newest.sequence < head.sequence:
                heads = {**kept, org_id: head}
                write_private_json(self._path, {one: str(each) for one, each in heads.items()})
        return None


def read_keys(path: Path) -> dict[str, bytes]:
    """Return key id -> public key from a file of FilePins; empty if there is no file yet.

    Raises Refusal `unknown_key` for a file that makes no sense: if it counted as none, any key could be pinned anew.
    """
    if not path.exists():
        return {}
    kept = read_json(path)
    try:
        if kept is None:
            raise ValueError("no JSON object")
        keys = {key_id: read_base64(text) for key_id, text in kept.items()}
        if not have_their_ids(keys):
            raise ValueError("no keys under their ids")
        return keys
    except (ValueError, TypeError):
        raise _unreadable("unknown_key", path) from None


def _unreadable(reason: str, path: Path) -> Refusal:
    message = f"{path} can't be read, so nothing is proved; `oa receipt keys --pin` trusts the site anew"
    return Refusal(reason, message)


class Site:
    """One site on this machine: its folder, and clients of it."""

    def __init__(
        self,
        home: ClientHome,
        control_url: str,
        *,
        khala_url: str = "",
        proxy: str = "",
        ca_file: Path | None = None,
        api_key: str = "",
        compress: bool = False,
    ) -> None:
        """Raises Refusal `invalid_setting` for a URL that is none."""
        check_khala_url(khala_url)
        self.control_url = control_url.rstrip("/")
        self.folder = home.site(control_url)
        self.device_id = home.device_id()
        self.pins = FilePins(self.folder)
        self.audit_heads = FileAuditHeads(self.folder)
        self._khala_url = khala_url
        self._proxy = proxy
        self._ca_file = ca_file
        self._api_key = api_key
        self._compress = compress

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client; its connections are closed at the end."""
        async with HttpxHttp(self._proxy, self._ca_file) as http:
            yield Client(
                self.control_url,
                http=http,
                sockets=WebSockets(self._proxy, self._ca_file, compress=self._compress),
                credentials=FileCredentialStore(self.folder),
                pins=self.pins,
                checkpoints=FileCheckpoints(self.folder),
                device_id=self.device_id,
                khala_url=self._khala_url,
                api_key=self._api_key,
            )

    @asynccontextmanager
    async def following(self) -> AsyncIterator[tuple[Client, SqliteStore]]:
        """A client and its watermark store; both are closed at the end."""
        async with self.client() as client:
            with closing(self.store(client)) as store:
                yield client, store

    def store(self, client: Client) -> SqliteStore:
        """The watermark store of the person who is signed in. The caller must close it."""
        return SqliteStore(self.folder / "watermarks.sqlite3", client.namespace)
