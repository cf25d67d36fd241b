"""A gateway in this process between a fake upstream and real sockets, with signed tokens."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import websockets.asyncio.client as ws_client
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from oa_base.identity import ISSUER, KHALA_AUDIENCE
from oa_khala import frames
from oa_khala.frames import Cursor, Form
from oa_khala.server.limits import SessionLimits
from oa_khala.tests.read_frames import read_frame
from oa_khala.wire import encode_client_frame
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.revocations import Revocations
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_platform.config.parsers import Address, Secret
from oa_platform.config.shared import GrpcClientSettings
from oa_platform.rpc.client import open_channel
from oa_platform.system.clock import SystemClock
from oa_platform.tls.protection import PLAIN, Protection
from oa_testing.waiting import PATIENCE_S
from openagents.control.v1.claims_pb2 import SyncTokenClaims
from services.khala_gateway.admission.app import Admission, LiveTokens
from services.khala_gateway.admission.domain import PATH, OriginPolicy
from services.khala_gateway.admission.door import SyncTokenVerifier
from services.khala_gateway.admission.limits import AdmissionLimits
from services.khala_gateway.connections.app.dependencies import Dependencies
from services.khala_gateway.connections.app.heartbeats import Heartbeats
from services.khala_gateway.connections.app.timer import Alarms
from services.khala_gateway.feeds.app.confirmations import Confirmations
from services.khala_gateway.feeds.app.flusher import Flusher
from services.khala_gateway.feeds.app.hub import FeedHub
from services.khala_gateway.feeds.app.replays import ReplayReader
from services.khala_gateway.feeds.app.snapshots import Snapshots
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sockets.limits import PortLimits
from services.khala_gateway.sockets.ws_door.server import WebSocketServer
from services.khala_gateway.sockets.ws_door.socket import Socket
from services.khala_gateway.sources.door import GrpcTopicSource
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.tests.fake_upstream import FakeUpstream
from services.khala_gateway.wiring import steady_wall_ms

USER = "usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X"
ORG = "org_01J9ZQ6T5W3M8K2N4P7R1S0V6X"
T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
T2 = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"
U = f"user:{USER}:runs"
ORIGIN = "http://127.0.0.1:8080"
F = TypeVar("F", bound=frames.ServerFrame)
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Limits:
    """All limits of a gateway under test."""

    # Tests count reads: what was read a moment ago is still kept, however long a moment is on a slow machine.
    hub: HubLimits = field(
        default_factory=lambda: HubLimits(audit_interval_ms=200, kept_pages_ms=_HOUR_MS, kept_snapshots_ms=_HOUR_MS)
    )
    session: SessionLimits = field(default_factory=SessionLimits)
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    source: SourceLimits = field(default_factory=lambda: SourceLimits(hedge_ms=0))
    port: PortLimits = field(default_factory=lambda: PortLimits(drain_window_ms=0))

    def with_session(self, **changes: int) -> "Limits":
        """Other limits of a session."""
        return replace(self, session=replace(self.session, **changes))

    def with_hub(self, **changes: Any) -> "Limits":
        """Other limits of the feeds."""
        return replace(self, hub=replace(self.hub, **changes))

    def with_port(self, **changes: Any) -> "Limits":
        """Other limits of the port."""
        return replace(self, port=replace(self.port, **changes))

    def with_admission(self, **changes: int) -> "Limits":
        """Other limits of admission."""
        return replace(self, admission=replace(self.admission, **changes))

    def with_socket(self, **changes: Any) -> "Limits":
        """Other limits of a socket."""
        return replace(self, port=replace(self.port, socket=replace(self.port.socket, **changes)))


def claims_of_runs(*owner_ids: str) -> dict[str, Any]:
    """Claims that grant all runs of owners."""
    grant = SyncTokenClaims.TopicGrant(form="run:*:events", ids=owner_ids)
    return {"claims_version": 2, "grants": [grant], "org_id": ORG}


class Stack:
    """A running gateway and what stands around it."""

    def __init__(self, runtime: FakeUpstream, projector: FakeUpstream, limits: Limits) -> None:
        self.runtime = runtime
        self.projector = projector
        self.limits = limits
        self.key: SigningKey = generate_key()
        self.revocations = Revocations(SystemClock())
        self.hub: FeedHub
        self.server: WebSocketServer
        self.sources: dict[str, GrpcTopicSource] = {}
        self._jtis = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}{PATH}"

    def token(self, *topics: str, **changes: object) -> str:
        """A sync token for `topics`; `changes` are claims, with `ttl` for the seconds it lives."""
        now = int(time.time())
        self._jtis += 1
        claims = SyncTokenClaims(
            iss=ISSUER,
            sub=USER,
            aud=KHALA_AUDIENCE,
            iat=now,
            nbf=now,
            exp=now + int(str(changes.pop("ttl", 300))),
            jti=f"jti_{self._jtis}",
            scopes=changes.pop("scopes", ["runs.read"]),  # type: ignore[arg-type]
            topics=topics,
            session_id="ses_1",
            device_id="dev_1",
            claims_version=1,
        )
        claims.MergeFrom(SyncTokenClaims(**changes))  # type: ignore[arg-type]
        return sign_token(claims, self.key)

    async def connect(
        self, *topics: str, form: Form = Form.PROTO, compression: str | None = None, **changes: Any
    ) -> "Client":
        """A client that has been welcomed."""
        client = await Client.open(self.url, form, compression=compression)
        await client.hello(self.token(*topics, **changes))
        await client.next(frames.Welcome)
        return client


_opened: list[ws_client.ClientConnection] = []
"""By tests, while a gateway of theirs ran."""


@contextlib.contextmanager
def ending_clients() -> Iterator[None]:
    """What is opened in the block ends with it. A gateway that ends first is no end for a client: it has to read of
    that, and the test may be over before."""
    before = len(_opened)
    try:
        yield
    finally:
        for socket in _opened[before:]:
            socket.transport.abort()
        del _opened[before:]


class Client:
    """One WebSocket client; `seqs` holds what it was delivered, by topic."""

    def __init__(self, socket: ws_client.ClientConnection, form: Form) -> None:
        self.socket = socket
        self.form = form
        self.seqs: dict[str, list[int]] = {}
        self.payloads: list[bytes] = []

    @classmethod
    async def open(cls, url: str, form: Form = Form.PROTO, **options: object) -> "Client":
        """A client that has shaken hands and said nothing."""
        subprotocols = [Subprotocol(form.value)]
        options = {"compression": None, "proxy": None, **options}
        socket = await ws_client.connect(url, subprotocols=subprotocols, **options)  # type: ignore[arg-type]
        _opened.append(socket)
        return cls(socket, form)

    async def hello(self, token: str) -> None:
        await self.send(frames.Hello(token, "dev_1", "test/1"))

    async def send(self, frame: frames.ClientFrame) -> None:
        data = encode_client_frame(frame, self.form)
        await self.socket.send(data if self.form is Form.PROTO else data.decode())

    async def subscribe(self, topic: str, cursor: Cursor | None = None, *, snapshots: bool = False) -> None:
        await self.send(frames.Subscribe(((topic, cursor),), (topic,) if snapshots else ()))

    async def receive(self) -> frames.ServerFrame:
        async with asyncio.timeout(PATIENCE_S):
            data = await self.socket.recv()
        assert isinstance(data, bytes) == (self.form is Form.PROTO)
        frame = read_frame(data if isinstance(data, bytes) else data.encode(), self.form)
        if isinstance(frame, frames.Event):
            self.seqs.setdefault(frame.topic, []).append(frame.seq)
            self.payloads.append(frame.payload)
        return frame

    async def next(self, kind: type[F]) -> F:
        """The next frame of `kind`; events before it are counted, heartbeats skipped, anything else is a failure."""
        while True:
            frame = await self.receive()
            if isinstance(frame, kind):
                return frame
            assert isinstance(frame, frames.Event | frames.Heartbeat), frame

    async def follow(self, topic: str, cursor: Cursor | None = None) -> frames.Subscribed:
        """Subscribes, and receives until the topic has been caught up with."""
        await self.subscribe(topic, cursor)
        subscribed = await self.next(frames.Subscribed)
        await self.next(frames.CaughtUp)
        return subscribed

    async def until_up_to(self, topic: str, seq: int) -> None:
        """As `up_to`, in a moment when not everything needs to be there yet."""
        async with asyncio.timeout(2 * PATIENCE_S):
            await self.up_to(topic, seq)

    async def up_to(self, topic: str, seq: int) -> None:
        """Receives until event `seq` of `topic` has come."""
        while (self.seqs.get(topic) or [0])[-1] < seq:
            await self.receive()

    async def close_code(self) -> tuple[str, int]:
        """The reason of the last ERROR (empty without one) and the close code."""
        reason = ""
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await self.receive()
                if isinstance(frame, frames.ErrorFrame):
                    reason = frame.reason
        return reason, self.socket.close_code or 0


@contextlib.asynccontextmanager
async def running(
    limits: Limits | None = None,
    runtime: FakeUpstream | None = None,
    projector: FakeUpstream | None = None,
    protection: Protection = PLAIN,
) -> AsyncIterator[Stack]:
    """A gateway with a runtime that has `T` (10 events) and a projector that has `U` (3 events)."""
    stack = Stack(runtime or FakeUpstream(), projector or FakeUpstream(), limits or Limits())
    stack.runtime.create(T, USER, 10)
    stack.projector.create(U, USER, 3)
    async with contextlib.AsyncExitStack() as parts:
        for name, upstream in (("runtime", stack.runtime), ("projector", stack.projector)):
            await upstream.start()
            parts.push_async_callback(upstream.stop)
            settings = replace(GrpcClientSettings(), reconnect_min_ms=100, reconnect_max_ms=200)
            channel = await parts.enter_async_context(
                open_channel(Address("127.0.0.1", upstream.port), settings, Secret("token"))
            )
            source_limits = stack.limits.source
            stack.sources[name] = GrpcTopicSource(name, channel, lambda: stack.hub, random.random, source_limits)
        flusher = Flusher(asyncio.get_running_loop(), 1.0)
        stack.hub = await parts.enter_async_context(FeedHub(stack.limits.hub, stack.sources, random.random, flusher))
        background = [work for source in stack.sources.values() for work in (source.run(), source.run_looking())]
        tasks = [asyncio.create_task(work) for work in (*background, stack.hub.run_audit())]
        parts.push_async_callback(_stop, tasks)
        parts.enter_context(ending_clients())
        stack.server = await parts.enter_async_context(_server(stack, flusher, protection))
        yield stack


def _server(stack: Stack, flusher: Flusher, protection: Protection) -> WebSocketServer:
    clock, limits = SystemClock(), stack.limits
    now_ms = steady_wall_ms(clock)
    verifier = TokenVerifier(StaticKeys([stack.key.public_key]), clock, revocations=stack.revocations)
    dependencies = Dependencies(
        hub=stack.hub,
        replays=ReplayReader(stack.sources, limits.hub),
        confirmations=Confirmations(stack.sources, limits.hub.concurrent_confirmations),
        snapshots=Snapshots(stack.sources, limits.hub),
        tokens=SyncTokenVerifier(verifier, clock, now_ms),
        live_tokens=LiveTokens(limits.admission),
        revocations=stack.revocations,
        flusher=flusher,
        alarms=Alarms(now_ms),
        heartbeats=Heartbeats(stack.hub.standing, limits.session.heartbeat_interval_ms, now_ms),
        limits=limits.session,
        now_ms=now_ms,
        jitter=random.random,
    )
    admission = Admission(OriginPolicy({ORIGIN}), limits.admission, now_ms)
    return WebSocketServer(Address("127.0.0.1", 0), dependencies, admission, limits.port, protection)


def buffered_bytes(socket: Socket) -> int:
    """What has been written to a socket of the gateway, and has not left yet."""
    return socket._tcp.get_write_buffer_size() if socket._tcp is not None else 0


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
