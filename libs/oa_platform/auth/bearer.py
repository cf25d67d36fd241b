"""The one parser of Authorization headers, for all doors."""

from __future__ import annotations

import re

from oa_base.refusal import Refusal

# `credentials` of RFC 9110 (11.4) with the scheme and the token of RFC 6750 (2.1). A header that came twice is joined
# with a comma (RFC 9110, 5.3), which no token contains, so nobody has to choose between two tokens.
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")


def bearer_token(header: str | None) -> str:
    """The token of an Authorization header. Raises Refusal `missing_authorization`, `invalid_authorization_scheme`."""
    if not header:
        raise Refusal("missing_authorization", "the call carries no Authorization header; send a bearer token in it")
    match = _BEARER.fullmatch(header)
    if match is None:
        text = "the Authorization header has another form; send it once, as Bearer, a space and one token"
        raise Refusal("invalid_authorization_scheme", text)
    return match[1]
