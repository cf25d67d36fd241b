"""A client of one site with everything that CPython has: httpx, websockets, files, SQLite."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from oa_client.client import Client
from oa_client.cpython.files import ClientHome, FileCredentialStore, read_json, write_private_json
from oa_client.cpython.network import HttpxHttp, WebSockets
from oa_client.cpython.sqlite_store import SqliteStore


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
        note = (read_json(self._path) or {}).get("checkpoint")
        return note.encode() if isinstance(note, str) else None

    def save(self, note: bytes) -> None:
        """See CheckpointStore."""
        write_private_json(self._path, {"checkpoint": note.decode()})

    def forget(self) -> None:
        """See CheckpointStore."""
        self._path.unlink(missing_ok=True)


def read_keys(path: Path) -> dict[str, bytes]:
    """Key id -> public key from a file of FilePins; empty when it holds none."""
    keys = {}
    for key_id, text in (read_json(path) or {}).items():
        try:
            keys[key_id] = base64.b64decode(str(text), validate=True)
        except binascii.Error:
            continue
    return keys


class Site:
    """One site on this machine: its folder, and clients of it."""

    def __init__(self, home: ClientHome, control_url: str, *, khala_url: str = "", proxy: str = "") -> None:
        self.control_url = control_url.rstrip("/")
        self.folder = home.site(control_url)
        self.device_id = home.device_id()
        self._khala_url = khala_url
        self._proxy = proxy

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client; its connections are closed at the end."""
        async with HttpxHttp(self._proxy) as http:
            yield Client(
                self.control_url,
                http=http,
                sockets=WebSockets(self._proxy),
                credentials=FileCredentialStore(self.folder),
                pins=FilePins(self.folder),
                device_id=self.device_id,
                khala_url=self._khala_url,
            )

    def store(self, client: Client) -> SqliteStore:
        """The watermark store of who is signed in. Close it."""
        return SqliteStore(self.folder / "watermarks.sqlite3", client.namespace)
