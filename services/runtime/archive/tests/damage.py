"""What can happen to an artifact in its store."""

from __future__ import annotations

import zstandard

from services.runtime.archive.app.archive import ObjectMissing


def damaged(data: bytes, how: str) -> bytes:
    """A stored object after some misfortune."""
    match how:
        case "changed":
            return data[:30] + bytes([data[30] ^ 1]) + data[31:]
        case "cut":
            return data[: len(data) // 2]
        case "another":
            return zstandard.compress(b"something else")
        case "larger":
            return zstandard.compress(bytes(1 << 24))
        case "longer":
            return data + bytes(1 << 15)
        case "skipped":
            return data + bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"note"
        case "missing":
            raise ObjectMissing
    raise AssertionError(how)


DAMAGES = ("changed", "cut", "another", "larger", "longer", "skipped", "missing")
