"""The steps around every incoming call, in one place for all four kinds of RPC.

In this order: request id and span; drain and limits; who calls; only then the request is received; then the handler,
with its requests parsed and checked; then the answer to any error that it raised. The server passes raw bytes, so that
a request that is not a message at all is answered from the catalogue too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import Span, StatusCode

from oa_base.crowd import Crowd, Shares
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator, MethodPolicy, Need, policy_of
from oa_platform.auth.identity import Caller, ServiceCaller, set_caller
from oa_platform.config.shared import GrpcServerSettings
from oa_platform.health.failures import refusal_of
from oa_platform.http.proxies import client_network
from oa_platform.rpc.refusals import note_refusal
from oa_platform.telemetry import metrics
from oa_platform.telemetry.context import REQUEST_ID_KEY, adopt_request_id
from oa_platform.telemetry.tracing import start_server_span
from oa_wire.rules import check_rules
from oa_wire.status import STATUS_METADATA_KEY, to_status, wire_message

if TYPE_CHECKING:
    # Generic in the type stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
    Context = grpc.aio.ServicerContext

_OVERLOADED_RETRY_MS = 200
_ENTRY_BYTES = 32
"""What an entry of metadata counts for beside its texts (RFC 9113, 6.5.2)."""
_CERTIFICATE_NAMES = "x509_subject_alternative_name"
_SERVER_FAULTS = frozenset({"internal"})
_log = structlog.get_logger(__name__)
# Finding a metric by its labels costs more than counting.
_in_flight = cache(metrics.RPCS_IN_FLIGHT.labels)
_calls, _durations = cache(metrics.RPCS.labels), cache(metrics.RPC_DURATION.labels)


@dataclass(frozen=True)
class _Method:
    """The facts about a method that are known before it is called."""

    name: str
    policy: MethodPolicy
    parse: Callable[[bytes], Any] | None
    behavior: Callable[..., Any]
    streaming: bool

    @property
    def kind(self) -> str:
        if self.policy.need is Need.NOTHING:
            return "health"
        return "stream" if self.streaming else "unary"


class CallGuard(grpc.aio.ServerInterceptor):
    """The one interceptor of a server."""

    def __init__(self, settings: GrpcServerSettings, authenticator: Authenticator, *, certified: bool = False) -> None:
        """`certified`: every client that connects has shown a certificate of our authorities."""
        self._certified = certified
        self._settings = settings
        self._authenticator = authenticator
        self._limits = {"unary": settings.max_calls, "stream": settings.max_streams, "health": settings.max_streams}
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {kind: set() for kind in self._limits}
        self._shares = {kind: Shares(limit) for kind, limit in self._limits.items() if kind != "health"}
        # Anybody may watch health, and without this limit keep everybody else from it.
        self._watches = Crowd("network", settings.max_watches_of_network, "health calls")
        # The place that a call has taken in one of these, until it ends.
        self._places: dict[asyncio.Task[Any], tuple[Crowd | Shares, str]] = {}
        self._handlers: dict[str, Handler] = {}
        self.draining = asyncio.Event()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler with everything around it; unknown methods have one too, so that they demand an identity."""
        name = handler_call_details.method
        if name not in self._handlers:
            inner = await continuation(handler_call_details)
            if inner is None:
                # Neither kept nor a label, because callers could make up names without end.
                return self._wrap(name, grpc.stream_stream_rpc_method_handler(_answer_unknown), label="unknown")
            self._handlers[name] = self._wrap(name, inner, label=name)
        return self._handlers[name]

    async def drain(self) -> None:
        """Take no more calls, and wait for streams to end; those that still run then are ended with `draining`."""
        self.draining.set()
        streams = self._tasks["stream"]
        if streams:
            await asyncio.wait(set(streams), timeout=self._settings.stream_drain_s)
        if streams:
            _log.info("streams_ended_by_drain", count=len(streams))
        left = streams | self._tasks["health"]  # a client that watches health would do so forever
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self._settings.stream_drain_s)

    def _wrap(self, name: str, inner: Any, label: str) -> Handler:
        behavior = inner.unary_unary or inner.unary_stream or inner.stream_unary or inner.stream_stream
        streaming = inner.request_streaming or inner.response_streaming
        method = _Method(label, policy_of(name), inner.request_deserializer, behavior, streaming)

        async def argument(requests: AsyncIterator[bytes]) -> Any:
            return (
                self._parsed_stream(method, requests) if inner.request_streaming else await self._one(method, requests)
            )

        async def answer_one(requests: AsyncIterator[bytes], context: Context) -> Any:
            async with _Call(self, method, context):
                return await behavior(await argument(requests), context)

        async def answer_many(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async with _Call(self, method, context):
                answers = behavior(await argument(requests), context)
                if not hasattr(answers, "__aiter__"):
                    await answers  # gRPC's own health service writes to the context
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer

        return _handler_like(inner, answer_many if inner.response_streaming else answer_one)

    async def _one(self, method: _Method, requests: AsyncIterator[bytes]) -> Any:
        """The one request of a call, checked."""
        limit_ms = self._settings.request_timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                return self._checked(method, await anext(requests))
        except StopAsyncIteration:
            raise Refusal("malformed_message", "the call ended without a request; send one message") from None
        except TimeoutError:
            message = f"the request was not complete after {limit_ms} ms; send it with the call"
            raise Refusal("deadline_exceeded", message) from None

    async def _parsed_stream(self, method: _Method, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        # The handler of a stream checks its messages, because it knows how the stream goes on after a refusal.
        async for request in requests:
            yield self._parsed(method, request)

    def _checked(self, method: _Method, data: bytes) -> Any:
        request = self._parsed(method, data)
        if isinstance(request, Message):
            check_rules(request)
        return request

    def _parsed(self, method: _Method, data: bytes) -> Any:
        if len(data) > self._settings.max_message_bytes:
            message = f"the request has {len(data)} bytes; send at most {self._settings.max_message_bytes}"
            raise Refusal("request_too_large", message)
        if method.parse is None:
            return data
        try:
            return method.parse(data)
        except DecodeError:
            message = "the request is not a message of the expected type; send the one that the contract names"
            raise Refusal("malformed_message", message) from None

    def takes(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether the metadata of a call may be looked at. gRPC refuses larger metadata by itself, but hands it over
        before, and a few kilobytes on the wire can be megabytes of repeated values."""
        size = sum(len(key) + len(value) + _ENTRY_BYTES for key, value in metadata)
        return size <= self._settings.max_metadata_bytes

    async def admit(self, method: _Method, metadata: Mapping[str, str], context: Context) -> None:
        """Admit a call, or raise the Refusal that says why not."""
        if self.draining.is_set():
            raise Refusal("draining", "this server is going away; call another replica", retry_after_ms=100)
        tasks = self._tasks[method.kind]
        if len(tasks) > self._limits[method.kind]:
            raise self._overloaded(method)
        if method.kind == "health":
            network = _network(context)
            self._watches.check(network)
            self._take_place(self._watches, network)
        names = _certificate_names(context) if self._certified else ()
        caller = await self._authenticator.authenticate(method.policy, metadata, names)
        set_caller(caller)
        if method.kind in self._shares:
            self._take_share(method, caller)

    def _take_share(self, method: _Method, caller: Caller | None) -> None:
        """Take a place for the org of a caller. A service calls for many orgs, and has shares of its own for them."""
        org_id = "" if caller is None or isinstance(caller, ServiceCaller) else caller.principal.org_id
        shares = self._shares[method.kind]
        if not shares.has_room(org_id):
            raise self._overloaded(method)
        self._take_place(shares, org_id)

    def _overloaded(self, method: _Method) -> Refusal:
        message = f"this server takes {self._limits[method.kind]} calls of this kind, and no more now; try again"
        return Refusal("overloaded", message, retry_after_ms=_OVERLOADED_RETRY_MS)

    def _take_place(self, places: Crowd | Shares, one: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        places.came(one)
        self._places[task] = places, one

    def began(self, method: _Method) -> asyncio.Task[Any]:
        """Note that the current task works on a call."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[method.kind].add(task)
        _in_flight(method.kind).inc()
        return task

    def ended(self, method: _Method, task: asyncio.Task[Any]) -> None:
        """Note that the task no longer works on the call."""
        self._tasks[method.kind].discard(task)
        if task in self._places:
            places, one = self._places.pop(task)
            places.went(one)
        _in_flight(method.kind).dec()


class _Call:
    """One call, from its first to its last moment; an error that is raised inside becomes the call's answer."""

    def __init__(self, guard: CallGuard, method: _Method, context: Context) -> None:
        self._guard = guard
        self._method = method
        self._context = context
        self._started = time.perf_counter()
        self._reason = metrics.OK_REASON

    async def __aenter__(self) -> None:
        given = self._context.invocation_metadata() or ()
        fits = self._guard.takes(given)
        metadata = _texts(given) if fits else {}
        self._request_id = adopt_request_id(metadata.get(REQUEST_ID_KEY))
        self._span = start_server_span(self._method.name.lstrip("/"), metadata)
        self._task = self._guard.began(self._method)
        try:
            if not fits:
                raise Refusal("request_too_large", "the call has too much metadata; send less")
            await self._guard.admit(self._method, metadata, self._context)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if isinstance(error, GeneratorExit):
                self._reason = "cancelled"  # the caller went away while an answer was on its way
            elif error is not None and not isinstance(error, grpc.aio.AbortError):
                await self._refuse(self._refusal(error))
        finally:
            self._guard.ended(self._method, self._task)
            self._record(self._span)

    def _refusal(self, error: BaseException) -> Refusal:
        if isinstance(error, asyncio.CancelledError):
            return self._cancellation(error)
        if isinstance(error, NotImplementedError) and self._context.code() is grpc.StatusCode.UNIMPLEMENTED:
            return _unknown_method()  # what generated code does in place of a method that a servicer lacks
        refusal = refusal_of(error)
        if refusal is not None:
            return refusal
        _log.error("call_failed", method=self._method.name, exc_info=error)
        message = "this is a defect on our side; report it with the request id"
        return Refusal("internal", message, metadata={"request_id": self._request_id})

    def _cancellation(self, error: asyncio.CancelledError) -> Refusal:
        remaining_s: float | None = self._context.time_remaining()  # the type stubs forget calls without a deadline
        if remaining_s is not None and remaining_s <= 0:
            self._reason = "deadline_exceeded"
        elif self._guard.draining.is_set() and not self._cancelled_by_client():
            return Refusal("draining", "this server is going away; connect again", retry_after_ms=100)
        else:
            self._reason = "cancelled"
        raise error  # nobody is left to answer

    def _cancelled_by_client(self) -> bool:
        return bool(self._context.cancelled())

    async def _refuse(self, refusal: Refusal) -> None:
        self._reason = refusal.reason
        note_refusal(self._method.name, refusal)
        trailers = ((STATUS_METADATA_KEY, to_status(refusal).SerializeToString()), (REQUEST_ID_KEY, self._request_id))
        await self._context.abort(grpc.StatusCode[refusal.info.grpc_code], wire_message(refusal), trailers)

    def _record(self, span: Span) -> None:
        method = self._method
        _calls(method.name, self._reason).inc()
        if not method.streaming:
            _durations(method.name, self._reason).observe(time.perf_counter() - self._started)
        span.set_attribute("oa.reason", self._reason)
        if self._reason in _SERVER_FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end()


def _certificate_names(context: Context) -> list[str]:
    """The names in the client's certificate, which the handshake has checked."""
    return [name.decode(errors="replace") for name in context.auth_context().get(_CERTIFICATE_NAMES, ())]


def _texts(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The metadata by key. Repeated values are joined, so that no one of several identities is picked."""
    texts: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str):
            texts[key] = f"{texts[key]}, {value}" if key in texts else value
    return texts


def _network(context: Context) -> str:
    """The network of the caller. gRPC says `ipv4:192.0.2.1:443` or `ipv6:%5B2001:db8::1%5D:443`."""
    return client_network(unquote(context.peer()).partition(":")[2], "", ())


def _unknown_method() -> Refusal:
    return Refusal("unknown_method", "there is no such method here; check the name and the address")


async def _answer_unknown(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    with suppress(StopAsyncIteration):
        raise _unknown_method()
    yield b""


def _handler_like(inner: Any, behavior: Callable[..., Any]) -> Handler:
    """A handler with answers of the same kind around `behavior`, which reads its requests as raw bytes.

    To gRPC, every method takes a stream of requests: it receives the request of any other method as a whole before it
    asks us anything, so that strangers could make it keep as much as they like, for as long as they like.
    """
    make = grpc.stream_stream_rpc_method_handler if inner.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(behavior, None, inner.response_serializer)
