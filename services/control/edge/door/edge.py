"""The endpoint of all methods: POST /package.Service/Method, and GET for methods that change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.responses import Response

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.config.parsers import IpNetwork
from oa_platform.http.proxies import client_network
from oa_platform.tasks.events import LoopTurn
from oa_platform.tasks.fair_slots import works_for
from oa_platform.telemetry.context import current_request_id
from oa_wire.rules import check_rules
from services.control.audit.app import RefusedCredentials
from services.control.audit.domain import Origin
from services.control.calls.app import Call, Handlers
from services.control.edge.app import CallRates
from services.control.edge.domain import CLIENT_BUILD_HEADER, ClientWindow, Room, timeout_s
from services.control.edge.door.body import packed_if_wanted
from services.control.edge.door.carried import Carried, carried
from services.control.edge.door.codec import Codec, decode, encode
from services.control.edge.door.methods import Method, Plane
from services.control.edge.limits import CallClass, EdgeLimits
from services.control.policy.app import Gate
from services.control.policy.domain import Denied, Public, StandingPrincipal
from services.control.upstreams.app import Upstreams


class Edge:
    """Serves the open methods: control's own through `handlers`, those of other planes by forwarding."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        handlers: Handlers,
        gate: Gate,
        upstreams: Upstreams,
        limits: EdgeLimits,
        clock: Clock,
        refused: RefusedCredentials,
        trusted_proxies: Sequence[IpNetwork] = (),
        clients: ClientWindow | None = None,
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
        self._clients = clients
        self._refused = refused
        self._rates = CallRates(limits.rates, clock)
        self._known = Room(limits.max_calls, limits.max_calls_of_one)
        self._anonymous = Room(limits.max_anonymous_calls, limits.max_anonymous_calls_of_network)

    @property
    def methods(self) -> Collection[Method]:
        """All methods that the edge serves."""
        return self._methods.values()

    async def serve(self, request: Request) -> Response:
        """Answer one call. Raises Refusal, which `middleware` answers."""
        method = self._method(request)
        if self._clients is not None:
            self._clients.check(", ".join(request.headers.getlist(CLIENT_BUILD_HEADER)))
        message = carried(request)
        seconds = timeout_s(request.headers, self._limits.call_timeout_s)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._answer(request, method, message, deadline)
        except TimeoutError:
            text = "the call ran out of its time and may have taken effect; look before you try again"
            raise Refusal("deadline_exceeded", text) from None
        body, headers = packed_if_wanted(answer, request.headers.get("accept-encoding", ""))
        if request.method == "GET":
            headers["cache-control"] = "private, no-store"
        headers |= {"content-type": message.codec.value, "vary": "accept-encoding, origin"}
        return Response(body, headers=headers)

    def _method(self, request: Request) -> Method:
        # The raw path, because a path that contains an escaped slash is not the name of a method.
        name = request.scope["raw_path"].decode("latin-1").removeprefix("/")
        method = self._methods.get(name)
        if method is None:
            raise Refusal("unknown_method", "there is no such method; see proto/ for those there are")
        # The access log and the metrics use the name from here on, so they get only names that exist.
        request.state.method = method.name
        allowed = ("GET", "POST") if method.reads_only else ("POST",)
        if request.method not in allowed:
            text = f"this is not the way to call a method; use {' or '.join(allowed)}"
            raise Refusal("method_not_allowed", text, metadata={"allow": ", ".join(allowed)})
        return method

    async def _answer(self, request: Request, method: Method, message: Carried, deadline: float) -> bytes:
        room = self._anonymous if isinstance(method.access, Public) else self._known
        origin = self._origin(request)
        authorization = ", ".join(request.headers.getlist("authorization"))
        with room.working():
            principal = await self._caller(authorization, method, origin)
        caller = principal.subject if principal else origin.network
        self._rates.take(method.call_class, caller)
        org_id = principal.org_id if principal else ""
        works_for(org_id or origin.network)
        with room.coming(caller, org_id):
            # This comes before the body, which is not read from a caller that may not call.
            with room.working(org_id):
                await self._admit(principal, method, origin)
            turn = LoopTurn()
            body = await message.content(request, self._limits)
            with room.working(org_id):
                if turn.is_over():
                    # The body was waited for, and in the meantime the caller may have lost the right to call.
                    principal = await self._caller(authorization, method, origin)
                    await self._admit(principal, method, origin)
                return await self._done(method, message.codec, body, Call(principal, origin), deadline)

    async def _caller(self, authorization: str, method: Method, origin: Origin) -> StandingPrincipal | None:
        try:
            return await self._gate.caller(authorization, method.access)
        except Refusal as refusal:
            if refusal.info.grpc_code == "UNAUTHENTICATED":
                # Who has no valid token is a stranger, whatever the method.
                self._rates.take(CallClass.PUBLIC, origin.network)
            raise

    async def _admit(self, principal: StandingPrincipal | None, method: Method, origin: Origin) -> None:
        if principal:
            await self._gate.admit(principal, method.access, method.name, origin)

    async def _done(self, method: Method, codec: Codec, body: bytes, call: Call, deadline: float) -> bytes:
        if method.plane is Plane.CONTROL:
            return await self._own(method, codec, body, call)
        return await self._forwarded(method, codec, body, call.caller, deadline)

    async def _own(self, method: Method, codec: Codec, body: bytes, call: Call) -> bytes:
        message = decode(codec, body, method.request_type)
        check_rules(message)
        try:
            return encode(codec, await self._handlers[method.name](message, call))
        except Denied as denied:
            await self._gate.record_denied(call.caller, method.name, call.origin, denied.reason, denied.org_id)
            raise
        except Refusal as refusal:
            if call.principal is None and refusal.info.grpc_code == "UNAUTHENTICATED":
                self._refused.note(call.origin.network, refusal.reason)
            raise

    async def _forwarded(
        self, method: Method, codec: Codec, body: bytes, principal: StandingPrincipal, deadline: float
    ) -> bytes:
        """Forward a message of the contract, which its owner judges. JSON is translated in both directions."""
        message = decode(codec, body, method.request_type)
        if codec is Codec.JSON:
            body = message.SerializeToString()
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
