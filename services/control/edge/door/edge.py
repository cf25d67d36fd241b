"""The endpoint of all methods: POST /package.Service/Method."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.responses import Response

from oa_base.refusal import Refusal
from oa_platform.http.proxies import IpNetwork, client_network
from oa_platform.telemetry.context import current_request_id
from oa_wire.rules import check_rules
from services.control.audit.domain import Origin
from services.control.calls.app import Call, Handlers
from services.control.edge.domain import check_protocol_version, timeout_s
from services.control.edge.door.body import packed_if_wanted, read_body
from services.control.edge.door.codec import Codec, codec_of, decode, encode
from services.control.edge.door.methods import Method, Plane
from services.control.edge.limits import EdgeLimits
from services.control.policy.app import Gate
from services.control.policy.domain import StandingPrincipal
from services.control.upstreams.app import Upstreams

_OVERLOADED_RETRY_MS = 200


class Edge:
    """Serves the open methods: control's own by `handlers`, the other planes' by forwarding."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        handlers: Handlers,
        gate: Gate,
        upstreams: Upstreams,
        limits: EdgeLimits,
        trusted_proxies: Sequence[IpNetwork] = (),
    ) -> None:
        unserved = {name for name, method in methods.items() if method.plane is Plane.CONTROL} - set(handlers)
        if unserved:
            raise ValueError(f"open methods without a handler: {sorted(unserved)}")
        self._methods = methods
        self._handlers = handlers
        self._gate = gate
        self._upstreams = upstreams
        self._limits = limits
        self._trusted_proxies = trusted_proxies
        self._calls = 0

    async def serve(self, request: Request) -> Response:
        """Answer one call. Raises Refusal, which `middleware` answers."""
        method = self._method(request)
        codec = codec_of(request.headers.get("content-type", ""))
        check_protocol_version(request.headers)
        seconds = timeout_s(request.headers, self._limits.call_timeout_s)
        answer = await self._within_limits(request, method, codec, seconds)
        body, headers = packed_if_wanted(answer, request.headers.get("accept-encoding", ""))
        return Response(body, headers=headers | {"content-type": codec.value, "vary": "accept-encoding, origin"})

    async def _within_limits(self, request: Request, method: Method, codec: Codec, seconds: float) -> bytes:
        if self._calls >= self._limits.max_calls:
            message = f"the edge has {self._calls} calls going on; try again"
            raise Refusal("overloaded", message, retry_after_ms=_OVERLOADED_RETRY_MS)
        self._calls += 1
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                return await self._answer(request, method, codec, deadline)
        except TimeoutError:
            message = "the call ran out of its time and may have taken effect; look before you try again"
            raise Refusal("deadline_exceeded", message) from None
        finally:
            self._calls -= 1

    def _method(self, request: Request) -> Method:
        name = request.url.path.removeprefix("/")
        method = self._methods.get(name)
        if method is None:
            raise Refusal("unknown_method", "there is no such method; see proto/ for those there are")
        # Known to the access log and the metrics from here on: names that exist, and no others.
        request.state.method = method.name
        if request.method != "POST":
            raise Refusal("method_not_allowed", "this is not the way to call a method; use POST")
        return method

    async def _answer(self, request: Request, method: Method, codec: Codec, deadline: float) -> bytes:
        origin = self._origin(request)
        # Before the body, which is not read from a caller that may not call.
        authorization = ", ".join(request.headers.getlist("authorization"))
        principal = await self._gate.admit(authorization, method.access, method.name, origin)
        body = await read_body(request, self._limits.max_body_bytes, self._limits.body_timeout_s)
        call = Call(principal, origin)
        if method.plane is Plane.CONTROL:
            return await self._own(method, codec, body, call)
        return await self._forwarded(method, codec, body, call.caller, deadline)

    async def _own(self, method: Method, codec: Codec, body: bytes, call: Call) -> bytes:
        message = decode(codec, body, method.request_type)
        check_rules(message)
        return encode(codec, await self._handlers[method.name](message, call))

    async def _forwarded(
        self, method: Method, codec: Codec, body: bytes, principal: StandingPrincipal, deadline: float
    ) -> bytes:
        """Bytes go through as they are, for the owner to judge; JSON is translated on both ways."""
        if codec is Codec.JSON:
            body = decode(codec, body, method.request_type).SerializeToString()
        seconds = deadline - asyncio.get_running_loop().time()
        answer = await self._upstreams.forward(method.plane.audience, method.name, body, principal, seconds)
        if codec is Codec.PROTO:
            return answer
        try:
            return encode(codec, method.response_type.FromString(answer))
        except DecodeError:
            raise Refusal("internal", "the service's answer can't be read; look for the request id") from None

    def _origin(self, request: Request) -> Origin:
        peer = request.client.host if request.client else ""
        forwarded_for = ",".join(request.headers.getlist("x-forwarded-for"))
        return Origin(current_request_id(), client_network(peer, forwarded_for, self._trusted_proxies))
