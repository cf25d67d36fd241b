"""The client's files: credentials, the device's id, pinned receipt keys. They have mode 0600 and are replaced whole."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oa_base.environment import check_control_url
from oa_base.refusal import Refusal
from oa_client.edge.auth import Credentials
from oa_client.edge.new_ids import new_device_id
from oa_wire.strict.text import read_json as read_json_text

LOCK_TIMEOUT_S = 60.0
"""Longer than a refresh may take, because the process that refreshes holds the lock."""
_LOCK_POLL_S = 0.02


class ClientHome:
    """The client's folder: `device.json` for the installation, `sites/<host-port>/` for each control URL."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def site(self, control_url: str) -> Path:
        """The folder of one site. Raises Refusal as `site_name` does."""
        folder = self.root / "sites" / site_name(control_url)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def device_id(self) -> str:
        """The stable id of this installation (`dev_…`), created on first use."""
        path = self.root / "device.json"
        is_new = not path.exists()  # asked first: a file that comes later is another process's
        if known := _device_id(path):
            return known
        device_id = new_device_id()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private_json(path, {"device_id": device_id}, only_new=is_new)
        # Another process may have been first, and sign in with its id: a session belongs to one device.
        return _device_id(path) or device_id


def _device_id(path: Path) -> str:
    """The id in a file; empty if there is none."""
    device_id = str((read_json(path) or {}).get("device_id", ""))
    return device_id if device_id.startswith("dev_") else ""


def site_name(control_url: str) -> str:
    """HOST-PORT of a control URL, fit for a file name. Raises Refusal `invalid_setting` if it is not an http(s) URL."""
    port = check_control_url(control_url)
    host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(control_url).hostname or "")
    return f"{host}-{port}"


class FileCredentialStore:
    """A CredentialStore in `credentials.json` of a site's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "credentials.json"
        self._lock_path = folder / "credentials.lock"

    def load(self) -> Credentials | None:
        """See CredentialStore. A file that makes no sense counts as none."""
        raw = read_json(self._path)
        try:
            return Credentials(**raw) if raw else None
        except TypeError:
            return None

    def save(self, credentials: Credentials) -> None:
        """See CredentialStore."""
        write_private_json(self._path, asdict(credentials))

    def clear(self) -> None:
        """See CredentialStore."""
        self._path.unlink(missing_ok=True)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """See CredentialStore."""
        async with one_at_a_time(self._lock_path):
            yield


@asynccontextmanager
async def one_at_a_time(lock_path: Path) -> AsyncIterator[None]:
    """A block that only one process enters at a time. The kernel releases the lock when its process ends."""
    with lock_path.open("a") as lock:
        deadline = asyncio.get_running_loop().time() + LOCK_TIMEOUT_S
        while not _locked(lock.fileno()):
            if asyncio.get_running_loop().time() > deadline:
                text = f"another process has held {lock_path} for too long; end it, or try again"
                raise Refusal("deadline_exceeded", text)
            await asyncio.sleep(_LOCK_POLL_S)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if there is none."""
    try:
        value = read_json_text(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_private_json(path: Path, value: Mapping[str, Any], *, only_new: bool = False) -> None:
    """Replace a file, whole or not at all, readable by its owner only (mkstemp makes it so from the start). With
    `only_new`, a file that is there stays as it is.

    When this returns, the new content is durable, even across a power cut. Raises Refusal `invalid_setting` if the file
    can't be written.
    """
    try:
        descriptor, staging = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        _replace(path, descriptor, staging, value, only_new)
        sync_folder(path.parent)
    except OSError as error:
        message = f"{path} can't be written ({error.strerror or type(error).__name__}); OA_CLIENT_HOME names the folder"
        raise Refusal("invalid_setting", message, field="OA_CLIENT_HOME") from None


def _replace(path: Path, descriptor: int, staging: str, value: Mapping[str, Any], only_new: bool) -> None:
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        if not (only_new and _linked(staging, path)):
            Path(staging).replace(path)
    finally:
        Path(staging).unlink(missing_ok=True)


def _linked(staging: str, path: Path) -> bool:
    """Give a file its name, unless there is another one. False where the file system has no links."""
    try:
        os.link(staging, path)
    except FileExistsError:
        pass
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
