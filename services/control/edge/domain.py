"""What the edge reads from a request's headers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from oa_base.refusal import Refusal

_TIMEOUT = re.compile(r"[0-9]{1,10}")
_PROTOCOL_VERSION = "1"


def check_protocol_version(headers: Mapping[str, str]) -> None:
    """Raises Refusal `unsupported_protocol_version`; a client needs not say its version."""
    if headers.get("connect-protocol-version", _PROTOCOL_VERSION) != _PROTOCOL_VERSION:
        message = "this version of the Connect protocol is not spoken here; use version 1"
        raise Refusal("unsupported_protocol_version", message)


def timeout_s(headers: Mapping[str, str], max_s: float) -> float:
    """Time for the call: what `Connect-Timeout-Ms` asks for, at most `max_s`. Raises Refusal `invalid_value`."""
    given = headers.get("connect-timeout-ms")
    if given is None:
        return max_s
    if not _TIMEOUT.fullmatch(given):
        message = "the value of Connect-Timeout-Ms is no number of milliseconds; send a whole one of at most 10 digits"
        raise Refusal("invalid_value", message, field="connect-timeout-ms")
    return min(int(given) / 1000, max_s)
