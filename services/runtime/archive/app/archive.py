"""Reads the archive: artifacts as zstd objects, each named by the SHA-256 of its content, so none is served changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import zstandard

from oa_base.refusal import Refusal
from services.runtime.archive import metrics
from services.runtime.archive.app.spool import Spool

_log = structlog.get_logger(__name__)
_UNPACK_BYTES = 1024
"""4 bytes can expand to 128 KiB. They are unpacked in pieces that expand to at most 32 MiB, so that the limit of bytes
comes first."""


class ObjectMissing(Exception):
    """There is no object with this name."""


class Objects(Protocol):
    """Named objects, each either whole or absent."""

    async def put(self, name: str, data: Spool) -> None:
        """Store an object, replacing one with this name; it is durable afterwards. Raises Refusal unavailable."""
        ...

    def get(self, name: str) -> AsyncIterator[bytes]:
        """The object in pieces. Raises ObjectMissing, Refusal unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Archived:
    """The archive's record of a run: an artifact of `bytes` with this hash, compressed in `object`."""

    run_id: str
    sha256: bytes
    bytes: int
    object: str


class ArchiveRecords(Protocol):
    """The records of the archive."""

    async def hold(self, holder: str, lease_ms: int) -> bool:
        """Take or keep the lease for `lease_ms`; return whether `holder` has it."""
        ...

    async def due(self, ages_s: Mapping[str, int], except_for: Sequence[str], limit: int) -> list[str]:
        """Finished runs of these classes that are as old as their class says, the longest due first."""
        ...

    async def find(self, run_id: str) -> Archived | None:
        """The archive's record of a run."""
        ...

    async def archive(self, run: Archived, stored_bytes: int, chain_head: bytes, timeout_ms: int) -> bool:
        """Record the run and prune its events, both or neither; return False if that was done before."""
        ...


class Archive:
    """Reads artifacts back. `objects` is None where no archive is configured."""

    def __init__(self, records: ArchiveRecords, objects: Objects | None, max_bytes: int) -> None:
        self._records = records
        self._objects = objects
        self._max_bytes = max_bytes

    async def fetch(self, run_id: str) -> Spool | None:
        """The artifact of a run, its hash checked; None when the run was never archived.

        Raises Refusal archive_damaged, unavailable.
        """
        archived = await self._records.find(run_id)
        return None if archived is None else await self.read(archived)

    async def read(self, archived: Archived) -> Spool:
        """The artifact in an object, its hash checked. Raises Refusal archive_damaged, unavailable."""
        if self._objects is None:
            raise Refusal(
                "unavailable", "the run is in the archive, and this replica knows of none; set OA_ARCHIVE_URL"
            )
        try:
            spool = await self._unpacked(archived, self._objects)
        except ObjectMissing:
            raise self._damaged(archived, "is missing") from None
        except zstandard.ZstdError:
            raise self._damaged(archived, "can't be unpacked") from None
        if (spool.size, spool.sha256) != (archived.bytes, archived.sha256):
            raise self._damaged(archived, "holds other bytes than were put there")
        return spool

    async def _unpacked(self, archived: Archived, objects: Objects) -> Spool:
        # Never more than the recorded bytes, so that a changed object can't fill the disk.
        spool = await asyncio.to_thread(Spool, min(self._max_bytes, archived.bytes))
        unpack = zstandard.ZstdDecompressor().decompressobj()
        try:
            async for piece in objects.get(archived.object):
                await asyncio.to_thread(_unpack, unpack, piece, spool)
        except Refusal as refusal:
            if refusal.reason == "limit_reached":
                raise self._damaged(archived, "holds more than was put there") from None
            raise
        return spool

    def _damaged(self, archived: Archived, what: str) -> Refusal:
        note_damage(what, run_id=archived.run_id, object=archived.object)
        return Refusal(
            "archive_damaged",
            f"the archived object of the run {what}; ask the operators to restore the archive",
            metadata={"run_id": archived.run_id},
        )


def note_damage(what: str, **where: object) -> None:
    """Count and log that something that the archive should have is missing or changed."""
    metrics.ARCHIVE_DAMAGED.inc()
    _log.error("archive_damaged", **where, what=what)


def pack(plain: Spool, max_bytes: int, level: int) -> Spool:
    """Compress a spool. Blocks."""
    packed = Spool(max_bytes)
    compress = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    for piece in plain.pieces():
        packed.write(compress.compress(piece))
    packed.write(compress.flush())
    return packed


def _unpack(unpack: zstandard.ZstdDecompressionObj, piece: bytes, into: Spool) -> None:
    for start in range(0, len(piece), _UNPACK_BYTES):
        if unpack.eof:
            raise zstandard.ZstdError("there is more after the end")
        into.write(unpack.decompress(piece[start : start + _UNPACK_BYTES]))
        if unpack.unused_data:
            raise zstandard.ZstdError("there is more after the end")
