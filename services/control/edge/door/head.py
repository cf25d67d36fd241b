"""What a request's head must be before anything reads it, whatever the request is for (RFC 9112)."""

from __future__ import annotations

import re

from starlette.types import Scope

from oa_base.refusal import Refusal

_HOST = re.compile(rb"(\[[0-9A-Fa-fv:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")


def check_head(scope: Scope, max_bytes: int) -> None:
    """Check the size, the host and the transfer coding. Raises Refusal `request_too_large`, `missing_field`,
    `invalid_value`, `unsupported_encoding`."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    hosts, codings = [], []
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if size > max_bytes:
        message = f"the request's head has more than {max_bytes} bytes; send fewer or shorter headers"
        raise Refusal("request_too_large", message)
    _check_hosts(hosts, scope["http_version"])
    if codings not in ([], [b"chunked"]):
        # The parser takes the coding at the end for the only one, and the body for unpacked.
        message = "this transfer coding is not spoken here; send chunked alone, or a Content-Length"
        raise Refusal("unsupported_encoding", message, field="transfer-encoding", metadata={"supported": "chunked"})


def _check_hosts(hosts: list[bytes], http_version: str) -> None:
    """Exactly one host is named (RFC 9112, 3.2). HTTP/1.0 may leave it out."""
    if not hosts and http_version != "1.0":
        raise Refusal("missing_field", "the request has no Host header; send one", field="host")
    if len(hosts) > 1:
        raise Refusal("invalid_value", "the request has several Host headers; send one", field="host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        message = "the Host header names no host; send a name or an address, with the port if there is one"
        raise Refusal("invalid_value", message, field="host")
