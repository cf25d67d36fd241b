"""Ids and secrets from the operating system."""

from __future__ import annotations

import secrets

from oa_platform.system.ids import new_id


class SystemEntropy:
    """See `app.ports.Entropy`."""

    def new_id(self, prefix: str) -> str:
        """A new id."""
        return new_id(prefix)

    def number_below(self, bound: int) -> int:
        """A number that nobody can guess."""
        return secrets.randbelow(bound)

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        return secrets.token_bytes(count)
