"""The real doors of a running stack: the public edge, and the gRPC port of each process, spoken to in raw bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx

from oa_errors import Refusal
from oa_errors.connect import from_connect
from oa_errors.status import STATUS_METADATA_KEY, from_status_bytes
from oa_localstack.secrets import Secrets, load_or_create
from oa_localstack.stack import Stack
from oa_platform.auth import AUTHORIZATION_KEY, PRINCIPAL_KEY, SERVICE_TOKEN_KEY, Need
from oa_platform.ids import new_id
from oa_platform.keys import SigningKey, load_key
from oa_platform.tokens import ISSUER, sign_token
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from tests.fuzz.methods import Target

CALLER = {"control": "khala_gateway", "runtime": "control", "projector": "control", "khala_gateway": "control"}
"""Process -> the service whose token it takes."""
_TIMEOUT_S = 15.0
_QUIET_S = 0.4
"""How long a stream that never ends by itself is listened to."""
_DEFECTS = {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Outcome:
    """What came back. `status`: the HTTP status or the gRPC code; `refusal` None when it was taken; `text`: all of the
    refusal that the caller sees, to look for echoes in."""

    status: str
    refusal: Refusal | None
    text: str = ""
    answer: bytes = b""

    @property
    def is_defect(self) -> bool:
        """Whether it is an answer that only a defect of ours gives."""
        if self.refusal is None:
            return False
        return self.status in _DEFECTS or self.status.startswith("5") or self.refusal.reason == "internal"


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in; `access_token` is for the edge."""

    user_id: str
    org_id: str
    session_id: str
    device_id: str
    access_token: str
    refresh_token: str


class Edge:
    """The public HTTP edge."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._http = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S)

    async def post(
        self, path: str, body: bytes, token: str = "", media_type: str = "application/json", **headers: str
    ) -> Outcome:
        """One call with these bytes."""
        sent = {"content-type": media_type, **headers}
        if token:
            sent["authorization"] = f"Bearer {token}"
        answer = await self._http.post(f"{self._base_url}/{path}", content=body, headers=sent)
        if answer.status_code == 200:
            return Outcome("200", None, answer=answer.content)
        return Outcome(str(answer.status_code), from_connect(answer.status_code, answer.content), answer.text)

    async def call(self, path: str, document: Mapping[str, Any], token: str = "") -> Any:
        """The answer to a request that is meant to be good."""
        outcome = await self.post(path, json.dumps(document).encode(), token)
        assert outcome.refusal is None, f"{path}: {outcome.refusal!r}"
        return json.loads(outcome.answer)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()


class Rpc:
    """The gRPC ports, with every identity that there is."""

    def __init__(self, stack: Stack) -> None:
        ports = stack.ports
        self._secrets: Secrets = load_or_create(stack.home / "secrets")
        self._key: SigningKey = load_key(self._secrets.signing_key_file.read_text())
        numbers = {
            "control": ports.control_grpc,
            "runtime": ports.runtime_grpc,
            "projector": ports.projector_grpc,
            "khala_gateway": ports.gateway_grpc,
        }
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channels = {
            name: grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for name, port in numbers.items()
        }

    async def close(self) -> None:
        """Close the channels."""
        for channel in self.channels.values():
            await channel.close()

    def identity(self, target: Target, person: Person, worker_token: str) -> Metadata:
        """What the method needs, of this person."""
        if target.need is Need.WORKER:
            return ((AUTHORIZATION_KEY, f"Bearer {worker_token}"),)
        service = self.service(target.process)
        return (*service, self.principal(target.process, person)) if target.need is Need.PRINCIPAL else service

    def service(self, process: str) -> Metadata:
        """The token of a service that may call `process`."""
        return ((SERVICE_TOKEN_KEY, self._secrets.service_tokens[CALLER[process]]),)

    def principal(self, process: str, person: Person) -> tuple[str, str]:
        """The principal token that control would make for this person."""
        now = int(time.time())
        claims = claims_pb2.PrincipalClaims(
            iss=ISSUER,
            sub=person.user_id,
            aud=process,
            iat=now,
            nbf=now,
            exp=now + 60,
            jti=new_id("tok"),
            kind=principal_pb2.PRINCIPAL_KIND_USER,
            org_id=person.org_id,
            scopes=["runs.read", "runs.write"],
            session_id=person.session_id,
            device_id=person.device_id,
        )
        return PRINCIPAL_KEY, sign_token(claims, self._key)

    async def call(self, target: Target, requests: Sequence[bytes], metadata: Metadata) -> Outcome:
        """Send the raw requests and see what comes: the refusal, or the last answer."""
        try:
            answer = await self._answer(target, requests, metadata)
        except grpc.aio.AioRpcError as error:
            return Outcome(error.code().name, _refusal(error), f"{error.details()} {_details(error)!r}")
        return Outcome("OK", None, answer=answer)

    async def _answer(self, target: Target, requests: Sequence[bytes], metadata: Metadata) -> bytes:
        channel, path = self.channels[target.process], f"/{target.path}"
        if not target.is_stream:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return await unary(requests[0], metadata=metadata, timeout=_TIMEOUT_S)
        if not target.descriptor.client_streaming:
            call: Any = channel.unary_stream(path)
            return await _first(call(requests[0], metadata=metadata, timeout=_QUIET_S))
        stream: Any = channel.stream_stream(path)(metadata=metadata, timeout=_TIMEOUT_S)
        return await _last(stream, requests)


async def _first(answers: Any) -> bytes:
    try:
        async for answer in answers:
            return bytes(answer)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    finally:
        answers.cancel()
    return b""


async def _last(stream: Any, requests: Sequence[bytes]) -> bytes:
    """Say everything, then listen to the end. A server that has refused need not hear us out."""
    last = b""
    try:
        for request in requests:
            await stream.write(request)
        await stream.done_writing()
    except grpc.aio.AioRpcError:
        raise
    except (grpc.aio.UsageError, Exception) as error:
        if not stream.done():
            raise error
    async for answer in stream:
        last = bytes(answer)
    return last


def _details(error: grpc.aio.AioRpcError) -> bytes:
    found = [value for key, value in error.trailing_metadata() or () if key == STATUS_METADATA_KEY]
    return bytes(found[0]) if found and isinstance(found[0], bytes) else b""


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal in the status. One without our details comes from the transport, and counts as a defect."""
    refusal = from_status_bytes(_details(error))
    return refusal or Refusal("internal", f"{error.code().name} without details: {error.details()}")
