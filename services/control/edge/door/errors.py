"""Headers of an error of the Connect protocol. `oa_wire.connect` has its body."""

from __future__ import annotations

from collections.abc import Mapping

from oa_base.refusal import Refusal

_OF_STATUS: Mapping[int, Mapping[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    # The client is too old, not its HTTP. But a 426 must name a protocol (RFC 9110, 15.5.22), and this is the only one
    # here: a client that reads the header learns that another HTTP would not help.
    426: {"upgrade": "HTTP/1.1", "connection": "upgrade"},
}
"""Headers that an answer of this status must have."""


def error_headers(refusal: Refusal) -> Mapping[str, str]:
    """The headers of the error, which say what would be taken instead: Retry-After (whole seconds, rounded up), Allow,
    Accept-Encoding, and those that a status must have."""
    headers = dict(_OF_STATUS.get(refusal.info.http_status, {}))
    if refusal.retry_hint_ms:
        headers["retry-after"] = str(refusal.retry_hint_s)
    if refusal.reason == "method_not_allowed":
        headers["allow"] = refusal.metadata.get("allow", "POST")
    if refusal.reason == "unsupported_encoding" and not refusal.field:
        headers["accept-encoding"] = refusal.metadata.get("supported", "")
    return headers
