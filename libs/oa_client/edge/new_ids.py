"""Ids that a client creates: for its device, and for a command that it may send more than once."""

from __future__ import annotations


def new_idempotency_key() -> str:
    """A key for one command. The same key with the same command has no second effect."""
    return f"oa-{_ulid()}"


def new_device_id() -> str:
    """An id for this installation of a client."""
    return f"dev_{_ulid()}"


def _ulid() -> str:
    # Imported here, because loading the library takes a twentieth of the CPU of a command that creates no id.
    from ulid import ULID

    return str(ULID())
