"""A whole control service inside the test's own process, with a small runtime behind it, all on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from ulid import ULID

from oa_base.clock import Clock
from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.identity import current_principal
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import SigningKey, dump_key, generate_key, load_key
from oa_platform.auth.revocations import Revocations
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.config.loading import load
from oa_platform.config.shared import GrpcServerSettings, token_hash
from oa_platform.health.readiness import Readiness
from oa_platform.process.lifecycle import Process
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.clock import SystemClock
from oa_testing.plain_http import plain_http
from oa_testing.postgres import ON_FAST, PATIENT, Database, free_port
from oa_testing.raw_connection import raw_answer
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from services.control.config import ControlSettings
from services.control.wiring import start

LOOPBACK = "127.0.0.1"
CONTROL_TOKEN = "control's token to others, for tests"
GATEWAY_TOKEN = "the gateway's token, for tests"
OPERATOR_TOKEN = "the operators' token, for tests"
HMAC_KEY = "0123456789abcdef0123456789abcdef"


def new_id(prefix: str) -> str:
    """An id as clients make them."""
    return f"{prefix}_{ULID()}"


class SmallRuntime(run_service_pb2_grpc.RunServiceServicer):
    """RunService over a dict, behind the real guard: service token and principal token are really verified."""

    def __init__(self) -> None:
        self.runs: dict[str, run_pb2.Run] = {}
        self.callers: list[Principal] = []
        self.metadata: list[dict[str, str]] = []

    async def CreateRun(self, request: Any, context: Any) -> run_service_pb2.CreateRunResponse:
        """Stores a run of the caller's."""
        caller = current_principal()
        self.callers.append(caller)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        run = run_pb2.Run(run_id=new_id("run"), user_id=caller.subject, org_id=caller.org_id, spec=request.spec)
        self.runs[run.run_id] = run
        return run_service_pb2.CreateRunResponse(run=run)

    async def GetRun(self, request: Any, context: Any) -> run_service_pb2.GetRunResponse:
        """A run of the caller's org."""
        caller = current_principal()
        run = self.runs.get(request.run_id)
        if run is None or run.org_id != caller.org_id:
            raise Refusal("not_found", "There is no such run.", field="run_id")
        return run_service_pb2.GetRunResponse(run=run)

    async def SendInput(self, request: Any, context: Any) -> run_service_pb2.SendInputResponse:
        """Takes anything."""
        return run_service_pb2.SendInputResponse(seq=3)

    async def ListRequests(self, request: Any, context: Any) -> run_service_pb2.ListRequestsResponse:
        """Nothing is asked."""
        return run_service_pb2.ListRequestsResponse()

    async def AnswerRequest(self, request: Any, context: Any) -> run_service_pb2.AnswerRequestResponse:
        """Takes anything."""
        return run_service_pb2.AnswerRequestResponse(seq=4)

    async def CancelRun(self, request: Any, context: Any) -> run_service_pb2.CancelRunResponse:
        """Always too often: for looking at how a refusal travels."""
        metadata = {"current_seq": "7"}
        raise Refusal("publish_rate_limited", "Slower.", field="reason", metadata=metadata, retry_after_ms=1500)


@dataclass
class Control:
    """A running control service."""

    http: httpx.AsyncClient
    base_url: str
    grpc_port: int
    mail_file: Path
    key: SigningKey
    runtime: SmallRuntime
    process: Process
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)

    async def call(self, method: str, body: object, token: str = "", **headers: str) -> httpx.Response:
        """POST a JSON body; `method` without "openagents." and version: "control.AuthService/StartChallenge"."""
        plane, _, rest = method.partition(".")
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/openagents.{plane}.v1.{rest}", content=content, headers=sent)

    async def ok(self, method: str, body: object, token: str = "") -> dict[str, Any]:
        """The answer of a call that must be good."""
        response = await self.call(method, body, token)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def mail_of(self, challenge_id: str) -> dict[str, str]:
        """The mail of a challenge, once it has left."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                lines = self.mail_file.read_text().splitlines() if self.mail_file.exists() else []
                for mail in map(json.loads, lines):
                    if mail.get("challenge_id") == challenge_id:
                        return dict(mail)
                await asyncio.sleep(0.01)

    async def sign_in(
        self, email: str = "ada@example.org", device_id: str = "", refresh_token: str = ""
    ) -> dict[str, Any]:
        """VerifyChallengeResponse of a person who signs in, with `deviceId`. `refresh_token` is its session's."""
        device_id = device_id or new_id("dev")
        started = await self.ok("control.AuthService/StartChallenge", {"email": email, "deviceId": device_id})
        code = (await self.mail_of(started["challengeId"]))["code"]
        guess = {"challengeId": started["challengeId"], "code": code, "deviceId": device_id}
        guess |= {"refreshToken": refresh_token} if refresh_token else {}
        return await self.ok("control.AuthService/VerifyChallenge", guess) | {"deviceId": device_id}

    async def access_token(self, email: str = "ada@example.org") -> str:
        """An access token of a person that signs in."""
        return str((await self.sign_in(email))["tokens"]["accessToken"])


async def raw(control: Control, *parts: bytes, pause_s: float = 0.0, from_address: str = "") -> bytes:
    """Send bytes to the edge and read until it closes."""
    url = control.http.base_url
    assert url.port is not None
    async with asyncio.timeout(PATIENCE_S):
        return await raw_answer(url.host, url.port, *parts, pause_s=pause_s, from_address=from_address)


def reason_of(response: httpx.Response) -> str:
    """The reason in a Connect error; fails the test when the answer isn't one."""
    body = response.json()
    assert set(body) == {"code", "message", "details"}, body
    info = next(detail for detail in body["details"] if detail["type"] == "google.rpc.ErrorInfo")
    return str(info["debug"]["reason"])


def field_of(response: httpx.Response) -> str:
    """The field at fault in a Connect error."""
    info = next(detail for detail in response.json()["details"] if detail["type"] == "google.rpc.ErrorInfo")
    return str(info["debug"].get("metadata", {}).get("field", ""))


@asynccontextmanager
async def small_runtime(
    port: int,
    key: SigningKey,
    servicer: SmallRuntime,
    clock: Clock | None = None,
    revocations: Revocations | None = None,
) -> AsyncIterator[None]:
    """The small runtime on a port; it knows of these revocations."""
    defaults = load(GrpcServerSettings, {"OA_GRPC_ADDRESS": f"{LOOPBACK}:{port}", "OA_GRPC_CALL_DRAIN_S": "0"})
    verifier = TokenVerifier(StaticKeys([key.public_key]), clock or SystemClock(), revocations=revocations)
    accepted = {token_hash(CONTROL_TOKEN): "control"}
    server = GrpcServer(defaults, Authenticator("runtime", accepted, verifier))
    server.register(run_service_pb2_grpc.add_RunServiceServicer_to_server, servicer)
    async with server:
        yield


@asynccontextmanager
async def running_control(
    database: Database, directory: Path, *, with_runtime: bool = True, clock: Clock | None = None, **overrides: str
) -> AsyncIterator[Control]:
    """A control service on free ports; `overrides` are environment variables."""
    key = load_key(overrides["OA_SIGNING_KEY"]) if "OA_SIGNING_KEY" in overrides else generate_key()
    runtime = SmallRuntime()
    base = free_port((0, 1000, 1001, 1002, 1100))
    mail_file = directory / "mail.jsonl"
    environment = {
        "OA_PORT_BASE": str(base),
        "OA_SERVICE_TOKEN": CONTROL_TOKEN,
        "OA_ACCEPTED_SERVICES": f"control={token_hash(CONTROL_TOKEN)},khala_gateway={token_hash(GATEWAY_TOKEN)},"
        f"operator={token_hash(OPERATOR_TOKEN)}",
        "OA_DATABASE_URL": database.control,
        **ON_FAST,
        **PATIENT,
        "OA_SIGNING_KEY": dump_key(key),
        "OA_HMAC_KEY": HMAC_KEY,
        "OA_DEV_MAIL_FILE": str(mail_file),
    } | overrides
    settings = load(ControlSettings, environment)
    process = Process(Readiness(30.0), clock)
    base_url = f"http://{LOOPBACK}:{base}"
    async with (
        _maybe_runtime(with_runtime, base + 1001, key, runtime),
        plain_http(base_url, timeout_s=PATIENCE_S) as http,
    ):
        try:
            await start(settings, process)
            process.readiness.phase = "running"
            yield Control(http, base_url, base + 1000, mail_file, key, runtime, process, environment)
        finally:
            await process.close()


@asynccontextmanager
async def _maybe_runtime(wanted: bool, port: int, key: SigningKey, servicer: SmallRuntime) -> AsyncIterator[None]:
    if not wanted:
        yield
        return
    async with small_runtime(port, key, servicer):
        yield
