"""HTTP to a provider with answers of limited size: a provider could send anything, for ever, or packed without end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from services.control.provider_sign_in.limits import MAX_ANSWER_BYTES


class Bounded(httpx2.AsyncBaseTransport):
    """A transport whose answers are not packed, and end with an error beyond MAX_ANSWER_BYTES."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2. Raises httpx2.DecodingError for a packed answer, and for one that is too large."""
        request.headers["accept-encoding"] = "identity"
        answer = await self._inner.handle_async_request(request)
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            await answer.aclose()
            raise httpx2.DecodingError("the answer is packed, although that was not asked for", request=request)
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        answer.stream = _BoundedStream(answer.stream)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an answer, up to the limit."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise httpx2.DecodingError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
