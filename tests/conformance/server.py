"""The edge's own protocol code in front of the service that Connect's conformance suite calls.

The suite starts `python -m tests.conformance.server PROTO`, where PROTO is the folder of its proto files, says on stdin
what it wants (a message after its length in 4 bytes), and reads from stdout where that is.

What stands here for the suite, and not in the edge: its service has errors, details, headers and trailers of every
kind, and the edge has those of the catalogue, with a reason in the details of every error. So the details, headers and
trailers that the suite asks for are put into the answer on its way out, instead of the catalogue's. Everything else is
the edge: paths, codecs, packing, queries, time-outs, statuses, errors.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oa_base.rate import Rate
from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address
from oa_platform.http.server import HttpServer
from oa_platform.system.clock import SystemClock
from services.control.calls.app import Call
from services.control.edge.door import edge as edge_door
from services.control.edge.door.edge import Edge
from services.control.edge.door.methods import Method, Plane
from services.control.edge.door.protocol import Connections, limited_protocol
from services.control.edge.door.routes import edge_app
from services.control.edge.limits import CallClass, EdgeLimits
from services.control.policy.domain import Public

PACKAGE = "connectrpc.conformance.v1"
SERVICE = f"{PACKAGE}.ConformanceService"
FILES = ("config.proto", "service.proto", "server_compat.proto")
MANY = 1_000_000
REASONS = {
    "CANCELED": "cancelled",
    "INVALID_ARGUMENT": "invalid_value",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
    "NOT_FOUND": "not_found",
    "ALREADY_EXISTS": "already_exists",
    "PERMISSION_DENIED": "missing_scope",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "FAILED_PRECONDITION": "protocol_violation",
    "ABORTED": "seq_conflict",
    "OUT_OF_RANGE": "epoch_mismatch",
    "UNIMPLEMENTED": "unsupported_encoding",
    "INTERNAL": "internal",
    "UNAVAILABLE": "unavailable",
    "DATA_LOSS": "chain_mismatch",
    "UNAUTHENTICATED": "missing_authorization",
}
"""Connect's code -> a reason with that code, of the status that Connect's table has if there is one. The catalogue has
no UNKNOWN."""


@dataclass
class Exchange:
    """A request of the suite, and what it asked to find in the answer."""

    scope: Scope
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    details: list[any_pb2.Any] | None = None


_exchange: contextvars.ContextVar[Exchange] = contextvars.ContextVar("exchange")


# ------------------------------------------------------------------------------------------------- the suite's contract


def load_contract(folder: str) -> None:
    """Put the suite's proto files into the pool of descriptors."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "set"
        include = Path(cast("str", protoc.__file__)).parent / "_proto"
        names = [f"connectrpc/conformance/v1/{name}" for name in FILES]
        arguments = ["protoc", f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}"]
        if protoc.main([*arguments, *names]):
            raise SystemExit("the suite's proto files can't be read; see above")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    for file in files.file:
        if file.package == PACKAGE:
            descriptor_pool.Default().Add(file)


def message_type(name: str) -> Any:
    """The class of a message of the suite's."""
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods() -> Mapping[str, Method]:
    """The unary methods, as the edge has its own; `Unimplemented` is not among them."""
    return {
        f"{SERVICE}/{name}": Method(
            name=f"{SERVICE}/{name}",
            plane=Plane.CONTROL,
            access=Public(),
            request_type=message_type(f"{name}Request"),
            response_type=message_type(f"{name}Response"),
            reads_only=name == "IdempotentUnary",
        )
        for name in ("Unary", "IdempotentUnary")
    }


# ------------------------------------------------------------------------------------------------- the suite's service


async def answer(request: Any, _call: Call) -> Any:
    """What the request's definition says: a payload that tells what came, or an error that does."""
    exchange = _exchange.get()
    definition = request.response_definition
    exchange.headers = [
        *_raw(definition.response_headers, ""),
        *_raw(definition.response_trailers, "trailer-"),
    ]
    info = _request_info(request, exchange.scope)
    await asyncio.sleep(definition.response_delay_ms / 1000)
    if definition.WhichOneof("response") == "error":
        told = any_pb2.Any()
        told.Pack(info)
        exchange.details = [*definition.error.details, told]
        raise _refusal(definition.error)
    response = message_type(request.DESCRIPTOR.name.replace("Request", "Response"))()
    response.payload.data = definition.response_data
    response.payload.request_info.CopyFrom(info)
    return response


def _refusal(error: Any) -> Refusal:
    code = descriptor_pool.Default().FindEnumTypeByName(f"{PACKAGE}.Code").values_by_number[error.code].name
    return Refusal(REASONS.get(code.removeprefix("CODE_"), "internal"), error.message)


def _raw(headers: Any, prefix: str) -> list[tuple[bytes, bytes]]:
    return [(f"{prefix}{one.name}".lower().encode(), value.encode()) for one in headers for value in one.value]


def _request_info(request: Any, scope: Scope) -> Any:
    info = message_type("ConformancePayload.RequestInfo")()
    grouped: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        grouped.setdefault(name.decode(), []).append(value.decode())
    for header, values in grouped.items():
        info.request_headers.add(name=header, value=values)
    if "connect-timeout-ms" in grouped:
        info.timeout_ms = int(grouped["connect-timeout-ms"][0])
    info.requests.add().Pack(request)
    if scope["method"] == "GET":
        for parameter, values in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items():
            info.connect_get_info.query_params.add(name=parameter, value=values)
    return info


# ------------------------------------------------------------------------------------------------- around the edge


class _OpenGate:
    """Everybody may call."""

    async def caller(self, *_: object) -> None:
        """Nobody in particular."""


class _Unrecorded:
    """Nothing is on record."""

    def note(self, *_: object) -> None:
        """Forget it."""


def around(app: ASGIApp) -> ASGIApp:
    """Adds to each answer what the suite asked to find in it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope)
        _exchange.set(exchange)
        started: Message | None = None

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message
                return
            if started is not None:
                body = _body(message.get("body", b""), exchange, started["status"])
                kept = [(name, value) for name, value in started["headers"] if name != b"content-length"]
                if not message.get("more_body"):
                    kept.append((b"content-length", str(len(body)).encode()))
                await send({**started, "headers": [*kept, *exchange.headers]})
                started, message = None, {**message, "body": body}
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def _body(body: bytes, exchange: Exchange, status: int) -> bytes:
    if status == 200 or not body:
        return body
    error = json.loads(body)
    error["details"] = [
        {"type": detail.TypeName(), "value": base64.b64encode(detail.value).rstrip(b"=").decode()}
        for detail in exchange.details or ()
    ]
    return json.dumps(error).encode()


async def serve(folder: str) -> None:
    """Serve what stdin asks for, until the suite ends the process."""
    load_contract(folder)
    # The suite's messages are not of our contracts, in which a oneof always has a member.
    edge_door.check_rules = lambda _message: None  # type: ignore[attr-defined,assignment]
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    wanted = message_type("ServerCompatRequest").FromString(sys.stdin.buffer.read(size))
    limits = EdgeLimits(
        max_calls=MANY,
        max_calls_of_one=MANY,
        max_anonymous_calls=MANY,
        max_anonymous_calls_of_network=MANY,
        max_body_bytes=wanted.message_receive_limit or 64 << 20,
        body_timeout_s=30.0,
        min_body_bytes_per_s=1,
        call_timeout_s=60.0,
        rates=dict.fromkeys(CallClass, Rate(MANY, 1)),
    )
    open_methods, clock = methods(), SystemClock()
    handlers, nothing = dict.fromkeys(open_methods, answer), cast("Any", None)
    edge = Edge(open_methods, handlers, cast("Any", _OpenGate()), nothing, limits, clock, cast("Any", _Unrecorded()))
    app = around(edge_app(edge, dict, clock, (), 1 << 20))
    protocol = limited_protocol(1 << 20, 60.0, 60.0, 60.0, Connections(MANY, MANY))
    async with HttpServer(app, Address("127.0.0.1", 0), variable="OA_HTTP_ADDRESS", protocol=protocol) as server:
        told = message_type("ServerCompatResponse")(host="127.0.0.1", port=server.port).SerializeToString()
        sys.stdout.buffer.write(len(told).to_bytes(4, "big") + told)
        sys.stdout.buffer.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(serve(sys.argv[1]))
