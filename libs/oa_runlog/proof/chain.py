"""The hash chain over a run's events.

chain_0 = SHA-256("openagents.run.v1:" ‖ run id); chain_n = SHA-256(chain_{n-1} ‖ bytes of event n). Anyone who has the
bytes, for example a client that watched the run, gets the same chain head as the authority.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_DOMAIN = b"openagents.run.v1:"


def chain_start(run_id: str) -> bytes:
    """chain_0 of a run: 32 bytes."""
    return hashlib.sha256(_DOMAIN + run_id.encode()).digest()


def chain_next(head: bytes, event: bytes) -> bytes:
    """The chain after one more event; `event` is the event's bytes exactly as stored."""
    return hashlib.sha256(head + event).digest()


def chain_over(run_id: str, events: Iterable[bytes]) -> bytes:
    """The chain head of a run with these events, beginning with its first."""
    head = chain_start(run_id)
    for event in events:
        head = chain_next(head, event)
    return head
