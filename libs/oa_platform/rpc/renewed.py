"""A channel whose certificate changes. gRPC's own channels keep the one that they were made with.

Each call goes to a channel that was made with the current pair. The one before takes no new calls, and is closed when
its calls have ended: streams go on as long as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from oa_platform.rpc.credentials import channel_credentials
from oa_platform.tls.certificates import Certificates

_WITHOUT_END_S = 10 * 365 * 86_400.0
"""gRPC cancels a closed channel's calls after a while, which it wants to be told."""


class RenewedChannel(grpc.aio.Channel):
    """Made by `make` for each pair of `certificates`, when it is first needed."""

    def __init__(self, certificates: Certificates, make: Callable[[grpc.ChannelCredentials], grpc.aio.Channel]) -> None:
        self._certificates = certificates
        self._make = make
        self._pair = certificates.current
        self._channel = make(channel_credentials(self._pair))
        self._former: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`: what still runs on former channels is ended as well."""
        former, self._former = self._former, {}
        for closing in former.values():
            closing.cancel()
        await asyncio.gather(*former.values(), return_exceptions=True)
        await asyncio.gather(*(channel.close(grace) for channel in (*former, self._channel)))

    @property
    def former_channels(self) -> int:
        """Number of channels with a pair that is no more current, on which calls still run."""
        return len(self._former)

    def current(self) -> grpc.aio.Channel:
        """The channel for a new call."""
        if self._pair is not self._certificates.current:
            retired, self._pair = self._channel, self._certificates.current
            self._channel = self._make(channel_credentials(self._pair))
            self._former[retired] = closing = asyncio.ensure_future(retired.close(_WITHOUT_END_S))
            closing.add_done_callback(lambda _: self._former.pop(retired, None))
        return self._channel

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self.current().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return _Method(self, "stream_stream", args, kwargs)


class _Method:
    """A method of a stub, bound to the channel of the moment."""

    def __init__(self, renewed: RenewedChannel, kind: str, args: Any, kwargs: Any) -> None:
        self._renewed = renewed
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self._channel: grpc.aio.Channel | None = None
        self._bound: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._renewed.current()
        if channel is not self._channel:
            self._channel, self._bound = channel, getattr(channel, self._kind)(*self._args, **self._kwargs)
        return self._bound(*args, **kwargs)
