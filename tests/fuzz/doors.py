"""The real doors of a running stack: the public edge, and the gRPC port of each process, spoken to in raw bytes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from oa_base.identity import ISSUER
from oa_base.refusal import Refusal
from oa_localstack.installation.secrets import Secrets, load_or_create
from oa_platform.auth.authenticator import AUTHORIZATION_KEY, PRINCIPAL_KEY, SERVICE_TOKEN_KEY, Need, policy_of
from oa_platform.auth.keys import SigningKey, load_key
from oa_platform.auth.tokens import sign_token
from oa_platform.system.ids import new_id
from oa_testing.plain_http import plain_http
from oa_testing.stack import StackUnderTest
from oa_wire.connect import from_connect
from oa_wire.status import STATUS_METADATA_KEY, from_status_bytes
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2
from openagents.runtime.v1 import worker_service_pb2
from openagents.sync.v1 import topic_service_pb2
from tests.fuzz.methods import Target, all_targets

CALLER = {"control": "khala_gateway", "runtime": "control", "projector": "control", "khala_gateway": "control"}
"""Process -> the service whose token it takes."""
_TIMEOUT_S = 120.0
_QUIET_S = 5.0
"""How long a stream that never ends by itself is listened to."""
_TOO_FAST = HTTPStatus.TOO_MANY_REQUESTS
_PATIENCE_S = 5.0
"""A door that is asked for too much at once says to come back sooner than this; limits of a feature take longer."""
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
    answers: tuple[bytes, ...] = ()

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


def wait_of(status: int, headers: Mapping[str, str]) -> float:
    """The seconds after which a door that was asked too fast wants to be asked again; 0 for every other answer.

    A fast machine asks more often in a second than one network may.
    """
    wait_s = float(headers.get("retry-after", 0)) if status == _TOO_FAST else 0.0
    return wait_s if wait_s < _PATIENCE_S else 0.0


class Edge:
    """The public HTTP edge."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._http = plain_http(timeout_s=_TIMEOUT_S)

    async def post(
        self, path: str, body: bytes, token: str = "", media_type: str = "application/json", **headers: str
    ) -> Outcome:
        """One call with these bytes."""
        sent = {"content-type": media_type, **headers}
        if token:
            sent["authorization"] = f"Bearer {token}"
        answer = await self._http.post(f"{self._base_url}/{path}", content=body, headers=sent)
        while wait_s := wait_of(answer.status_code, answer.headers):
            await asyncio.sleep(wait_s)
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

    def __init__(self, stack: StackUnderTest) -> None:
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
        callers = sorted(policy_of(target.path).callers or ())
        service = self.service(target.process, callers[0] if callers else "")
        return (*service, self.principal(target.process, person)) if target.need is Need.PRINCIPAL else service

    def service(self, process: str, caller: str = "") -> Metadata:
        """The token of a service that may call `process`, or of this one."""
        return ((SERVICE_TOKEN_KEY, self._secrets.service_tokens[caller or CALLER[process]]),)

    async def operate(self, method: str, document: Mapping[str, object]) -> None:
        """What an operator does at control, for what comes next. `method`: `BlockService/BlockSubject`, for example."""
        path = f"openagents.control.v1.{method}"
        target = next(one for one in all_targets() if one.path == path)
        outcome = await self.call(
            target, [target.request(document).SerializeToString()], self.service("control", "operator")
        )
        assert outcome.refusal is None, outcome.refusal

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
        """Send the raw requests and see what comes: the refusal, or the answers. A refusal may also be an answer of a
        stream, that goes on then."""
        try:
            answers = await self._answers(target, requests, metadata)
        except grpc.aio.AioRpcError as error:
            if _is_ours(error):
                return await self.call(target, requests, metadata)
            return Outcome(error.code().name, _refusal(error), f"{error.details()} {_details(error)!r}")
        refusal = _refused_in_stream(target, answers)
        if refusal is not None:
            return Outcome(refusal.info.grpc_code, refusal, f"{refusal.message} {refusal.metadata}", answers=answers)
        return Outcome("OK", None, answers=answers)

    async def _answers(self, target: Target, requests: Sequence[bytes], metadata: Metadata) -> tuple[bytes, ...]:
        channel, path = self.channels[target.process], f"/{target.path}"
        if not target.is_stream:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return (await unary(requests[0], metadata=metadata, timeout=_TIMEOUT_S),)
        if not target.descriptor.client_streaming:
            call: Any = channel.unary_stream(path)
            return await _first(call(requests[0], metadata=metadata, timeout=_QUIET_S))
        stream: Any = channel.stream_stream(path)(metadata=metadata, timeout=_TIMEOUT_S)
        return await _all(stream, requests, waits=target.path.endswith("/Attach") and _is_append(requests[-1]))


def _refused_in_stream(target: Target, answers: Sequence[bytes]) -> Refusal | None:
    for answer in answers:
        if target.path.endswith("/Attach"):
            said = worker_service_pb2.AttachResponse.FromString(answer)
            if said.HasField("append_refused"):
                refused = said.append_refused
                field = f"append.{refused.field}" if refused.field else ""
                return Refusal(refused.reason, refused.message, field=field, metadata=dict(refused.metadata))
        if target.path.endswith("/WatchTopics"):
            for topic in topic_service_pb2.WatchTopicsResponse.FromString(answer).refused:
                return Refusal(topic.reason, topic.message)
    return None


async def _first(answers: Any) -> tuple[bytes, ...]:
    try:
        async for answer in answers:
            return (bytes(answer),)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    finally:
        answers.cancel()
    return ()


async def _all(stream: Any, requests: Sequence[bytes], *, waits: bool) -> tuple[bytes, ...]:
    """Say everything, then listen to the end. `waits`: for the answer to an append, before our side is ended: a worker
    that goes away is not answered any more."""
    found: list[bytes] = []
    for request in requests:
        await stream.write(request)
    while waits and (answer := await stream.read()) is not grpc.aio.EOF:
        found.append(bytes(answer))
        said = worker_service_pb2.AttachResponse.FromString(found[-1])
        waits = said.WhichOneof("message") not in ("appended", "append_refused")
    await stream.done_writing()
    while (answer := await stream.read()) is not grpc.aio.EOF:
        found.append(bytes(answer))
    return tuple(found)


def _is_append(request: bytes) -> bool:
    try:
        return worker_service_pb2.AttachRequest.FromString(request).HasField("append")
    except DecodeError:
        return False


def _is_ours(error: grpc.aio.AioRpcError) -> bool:
    """Whether the status was made by gRPC on this side, for a write to a call that the server had just ended."""
    return error.code() is grpc.StatusCode.INTERNAL and "from Core" in (error.details() or "")


def _details(error: grpc.aio.AioRpcError) -> bytes:
    found = [value for key, value in error.trailing_metadata() or () if key == STATUS_METADATA_KEY]
    return bytes(found[0]) if found and isinstance(found[0], bytes) else b""


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal in the status. One without our details comes from the transport, and counts as a defect."""
    refusal = from_status_bytes(_details(error))
    return refusal or Refusal("internal", f"{error.code().name} without details: {error.details()}")
