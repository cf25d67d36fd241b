"""A foreign Connect client at the edge."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from oa_testing.postgres import REPOSITORY
from services.control.tests.harness import Control, new_id

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
