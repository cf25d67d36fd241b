"""Foreign Connect clients at the edge: `buf curl`, and the official one for Python."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar, cast

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from oa_testing.postgres import REPOSITORY
from openagents.control.v1 import auth_service_pb2, session_service_pb2, sync_token_service_pb2
from openagents.runtime.v1 import run_service_pb2
from services.control.tests.harness import Control, new_id

T = TypeVar("T", bound=Message)
BUF = Path(sys.executable).parent / "buf"


async def buf_curl(control: Control, method: str, body: object, *arguments: str) -> tuple[int, str, str]:
    """Call with buf's own Connect client, which knows the contract from proto/ and nothing of this code."""
    process = await asyncio.create_subprocess_exec(
        str(BUF), "curl", "--protocol", "connect", "--schema", str(REPOSITORY / "proto"), "--data", json.dumps(body),
        *arguments, f"{control.base_url}/{method}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"BUF_CACHE_DIR": str(control.mail_file.parent / "buf")},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed beside this Python")
async def test_a_foreign_connect_client_gets_on_with_the_edge(control: Control) -> None:
    start = "openagents.control.v1.AuthService/StartChallenge"
    code, out, err = await buf_curl(control, start, {"email": "ada@example.org", "deviceId": new_id("dev")})
    assert code == 0, err
    assert json.loads(out)["challengeId"].startswith("chl_")

    token = await control.access_token("bob@example.org")
    caller = "openagents.control.v1.SessionService/GetCaller"
    code, out, err = await buf_curl(control, caller, {}, "--header", f"authorization: Bearer {token}")
    assert code == 0, err
    assert json.loads(out)["email"] == "bob@example.org"

    code, out, err = await buf_curl(control, caller, {})
    assert code != 0
    assert json.loads(err)["code"] == "unauthenticated", "it read our error as a Connect error"
    assert "missing_authorization" in err, "and decoded its detail"


class Foreign:
    """connectrpc's client, with the methods of our descriptors."""

    def __init__(self, client: ConnectClient) -> None:
        self._client = client
        self.token = ""

    async def call(self, method: str, request: Message, answer: type[T], *, use_get: bool = False) -> T:
        """The answer, or what connectrpc raises."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        info = _method(f"openagents.{method}")
        assert info.output is answer
        return cast(
            "T", await self._client.execute_unary(request=request, method=info, headers=headers, use_get=use_get)
        )


def _method(name: str) -> MethodInfo[Message, Message]:
    service, _, method = name.partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(method)
    level = MethodOptions.IdempotencyLevel.Name(found.GetOptions().idempotency_level)
    return MethodInfo(
        name=method,
        service_name=service,
        input=message_factory.GetMessageClass(found.input_type),
        output=message_factory.GetMessageClass(found.output_type),
        idempotency_level=IdempotencyLevel[level.removeprefix("IDEMPOTENCY_")],
        stream_type=StreamType.UNARY,
    )


async def _refused(call: Awaitable[Message]) -> tuple[Code, error_details_pb2.ErrorInfo, float]:
    """What connectrpc read of an error: its code, who is to blame for what, and how long to wait."""
    with pytest.raises(ConnectError) as refused:
        await call
    details = {one.type_name: one.message_bytes for one in refused.value.details}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    retry = error_details_pb2.RetryInfo.FromString(details.get("google.rpc.RetryInfo", b""))
    return refused.value.code, info, retry.retry_delay.ToMilliseconds() / 1000


@pytest.mark.parametrize("codec", [google_protobuf_binary_codec(), google_protobuf_json_codec()], ids=Codec.name)
async def test_the_official_python_client_goes_from_sign_in_to_mint(control: Control, codec: Codec) -> None:
    async with ConnectClient(control.base_url, codec=codec) as client:
        at = Foreign(client)
        device = new_id("dev")
        start = auth_service_pb2.StartChallengeRequest(email="ada@example.org", device_id=device)
        begun = await at.call("control.v1.AuthService/StartChallenge", start, auth_service_pb2.StartChallengeResponse)
        code = (await control.mail_of(begun.challenge_id))["code"]
        verify = auth_service_pb2.VerifyChallengeRequest(challenge_id=begun.challenge_id, code=code, device_id=device)
        signed_in = await at.call(
            "control.v1.AuthService/VerifyChallenge", verify, auth_service_pb2.VerifyChallengeResponse
        )
        get_caller = "control.v1.SessionService/GetCaller"
        who, whom = session_service_pb2.GetCallerRequest(), session_service_pb2.GetCallerResponse
        assert (await _refused(at.call(get_caller, who, whom)))[0] is Code.UNAUTHENTICATED

        at.token = signed_in.tokens.access_token
        for use_get in (True, False):
            caller = await at.call(get_caller, who, whom, use_get=use_get)
            assert (caller.email, caller.principal.subject) == ("ada@example.org", signed_in.user_id)
        create = run_service_pb2.CreateRunRequest(idempotency_key="k1")
        create.spec.adapter = "exec"
        create.spec.exec.argv[:] = ["git", "log"]
        run = (await at.call("runtime.v1.RunService/CreateRun", create, run_service_pb2.CreateRunResponse)).run
        mint = sync_token_service_pb2.MintSyncTokenRequest(topics=[f"run:{run.run_id}:events", "user:usr_1:runs"])
        method = "control.v1.SyncTokenService/MintSyncToken"
        minted = await at.call(method, mint, sync_token_service_pb2.MintSyncTokenResponse)
        assert [grant.granted for grant in minted.grants] == [True, False]

        mint.ttl_seconds = 1
        status, info, _ = await _refused(at.call(method, mint, sync_token_service_pb2.MintSyncTokenResponse))
        assert (status, info.reason, info.metadata["field"]) == (Code.INVALID_ARGUMENT, "invalid_value", "ttl_seconds")
        cancel = run_service_pb2.CancelRunRequest(run_id=run.run_id)
        upstream = at.call("runtime.v1.RunService/CancelRun", cancel, run_service_pb2.CancelRunResponse)
        status, info, wait_s = await _refused(upstream)
        assert (status, info.reason, wait_s) == (Code.RESOURCE_EXHAUSTED, "publish_rate_limited", 1.5)
        assert dict(info.metadata) | {"current_seq": "7", "field": "reason"} == dict(info.metadata)
