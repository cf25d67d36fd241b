"""permessage-deflate (RFC 7692), as far as a server of shared messages can agree to it.

A message is compressed once and sent to every client. So no message may depend on another one (no context takeover),
and all clients have to accept the same window.
"""

from collections.abc import Sequence

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionParameter

from services.khala_gateway.feeds.domain import WINDOW_BITS


class SharedDeflate(ServerPerMessageDeflateFactory):
    """Agrees to no context in either direction, and declines a client that accepts only windows smaller than ours.
    `websockets` inflates what a client compresses, up to the limit of a message and no further."""

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """The answer to one offer. Raises NegotiationError to decline it."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < WINDOW_BITS:
            raise NegotiationError(f"windows of {extension.local_max_window_bits} bits are not offered")
        return answer, extension


_DEFLATE = SharedDeflate()


def agreed_deflate(offers: Sequence[str]) -> tuple[str, Extension | None]:
    """What is answered to the first acceptable offer among Sec-WebSocket-Extensions headers, and what inflates then.

    Returns ("", None) if none is acceptable; offers that can't be read are not.
    """
    for value in offers:
        try:
            offered = parse_extension(value)
        except InvalidHeader:
            continue
        for name, parameters in offered:
            if name != _DEFLATE.name:
                continue
            try:
                answer, extension = _DEFLATE.process_request_params(parameters, ())
            except NegotiationError:
                continue
            return build_extension([(name, answer)]), extension
    return "", None
