"""A channel that is made anew when gRPC's own would go on with outdated knowledge.

- gRPC keeps the certificate that a channel was made with.
- gRPC asks DNS when a connection ends, but not when the replicas that it knows want no more calls. While a roll stops
  them one after the other, all of them may be about to end before one connection has ended, and the new replicas are
  unknown. A channel that was just made asks DNS at once.

Each call goes to the current channel. A former channel takes no new calls, and is closed when its calls have ended;
its streams may go on for as long as they like. A unary call is made again as `repeats` says, within its timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from oa_platform.rpc.credentials import channel_credentials
from oa_platform.rpc.repeats import Repeats, connection_lost
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tls.certificates import Certificates

_WITHOUT_END_S = 10 * 365 * 86_400.0
"""gRPC cancels a closed channel's calls after a time that has to be given."""
SETTLE_S = 0.1
"""Maximum pause before a call that lost its connection is made again. gRPC fails the calls of such a connection a
moment before it stops giving it new ones: a call made again at once could be lost with the same connection."""
_SETTLE_POLL_S = 0.005

_READY = grpc.ChannelConnectivity.READY
Make = Callable[[grpc.ChannelCredentials | None], grpc.aio.Channel]
Along = Callable[[Any], grpc.aio.Metadata]
"""Makes the metadata of a unary call from what its caller gave."""


class RenewedChannel(grpc.aio.Channel):
    """A channel that `make` makes for each pair of `certificates`, and when no replica that it knows takes calls."""

    def __init__(self, certificates: Certificates | None, make: Make, renew_min_ms: int, along: Along) -> None:
        """`renew_min_ms`: minimum age of a channel that is replaced because it knows no replica that takes calls."""
        self._along = along
        self._certificates = certificates
        self._make = make
        self._renew_min_s = renew_min_ms / 1000
        self._former: dict[grpc.aio.Channel, asyncio.Task[None]] = {}
        self._renew()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`: calls that still run on former channels are ended as well."""
        former, self._former = self._former, {}
        await cancel_and_wait(*former.values())
        await asyncio.gather(*(channel.close(grace) for channel in (*former, self._channel)))

    @property
    def former_channels(self) -> int:
        """Number of channels that were replaced, on which calls still run."""
        return len(self._former)

    def current(self) -> grpc.aio.Channel:
        """The channel for a new call."""
        if self._pair is not self._current_pair() or self._knows_nobody():
            retired = self._channel
            self._renew()
            self._former[retired] = closing = asyncio.ensure_future(retired.close(_WITHOUT_END_S))
            closing.add_done_callback(lambda _: self._former.pop(retired, None))
        return self._channel

    def _renew(self) -> None:
        self._pair = self._current_pair()
        self._channel = self._make(None if self._pair is None else channel_credentials(self._pair))
        self._made_at = time.monotonic()

    def _current_pair(self) -> Any:
        return None if self._certificates is None else self._certificates.current

    def _knows_nobody(self) -> bool:
        """Whether no replica that it knows takes calls, and it is not so new that DNS would say the same again."""
        old = time.monotonic() - self._made_at >= self._renew_min_s
        return old and self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await asyncio.sleep(self._renew_min_s)  # it may stay in this state; the next look gets another channel
            else:
                await self._channel.wait_for_state_change(state)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`; a call is a coroutine."""
        return _UnaryMethod(self, self._along, args, kwargs)

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
    """A method of a stub, bound to the current channel."""

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


class _UnaryMethod(_Method):
    """A unary method, whose calls may be made again."""

    def __init__(self, renewed: RenewedChannel, along: Along, args: Any, kwargs: Any) -> None:
        super().__init__(renewed, "unary_unary", args, kwargs)
        self._along = along

    async def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Any:
        repeats = Repeats(self._args[0])
        metadata = self._along(metadata)
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        while True:
            left = None if until is None else max(until - loop.time(), 0.0)
            try:
                return await super().__call__(request, timeout=left, metadata=metadata, **options)
            except grpc.aio.AioRpcError as error:
                if not repeats.allow(error):
                    raise
                if connection_lost(error):
                    await self._settled()

    async def _settled(self) -> None:
        """Return when the channel has noticed the loss, or `SETTLE_S` later: with other replicas it stays ready."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        while self._channel and self._channel.get_state() is _READY and loop.time() < until:
            await asyncio.sleep(_SETTLE_POLL_S)
