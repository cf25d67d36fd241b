"""Requests that are wrong get a typed answer over the public edge, and change nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from oa_testing.plain_http import plain_http
from oa_testing.stack import StackUnderTest
from oa_wire.connect import from_connect
from tests.e2e.world import signed_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_tokens_that_nobody_issued_are_refused_by_name(shared_stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(shared_stack, tmp_path / "client", f"{tmp_path.name}@example.org") as world:
        good = (await world.client.auth.current()).value.split(".")
        forged = ".".join([*good[:2], good[2][::-1]])
        for header, reason in (
            ({}, "missing_authorization"),
            ({"Authorization": "Basic YTpi"}, "invalid_authorization_scheme"),
            ({"Authorization": "Bearer nonsense"}, "invalid_token"),
            ({"Authorization": f"Bearer {forged}"}, "invalid_token"),
        ):
            answer = await _post(shared_stack, "openagents.control.v1.SessionService/GetCaller", b"{}", header)
            refusal = from_connect(answer.status_code, answer.content)
            assert (answer.status_code, refusal.reason) == (401, reason)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", ""),
        (b"[]", ""),
        (b'{"page_size": "many"}', "page_size"),
        (b'{"page_size": -1}', "page_size"),
        (b'{"status": "RUN_STATUS_NONE_SUCH"}', "status"),
        (b'{"no_such_field": 1}', "member 1 of the body"),
    ],
)
async def test_a_malformed_request_is_named_and_harms_nothing(
    shared_stack: StackUnderTest, tmp_path: Path, body: bytes, field: str
) -> None:
    async with signed_in(shared_stack, tmp_path / "client", f"{tmp_path.name}@example.org") as world:
        header = {"Authorization": f"Bearer {(await world.client.auth.current()).value}"}
        answer = await _post(shared_stack, "openagents.projection.v1.ReadService/ListRunSummaries", body, header)
        refusal = from_connect(answer.status_code, answer.content)
        assert answer.status_code == 400, refusal
        assert field in (refusal.field or refusal.message)
        assert (await world.client.commands.runs()).runs == ()


async def _post(stack: StackUnderTest, method: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async with plain_http() as client:
        url = f"{stack.urls['control']}/{method}"
        return await client.post(url, content=body, headers={"Content-Type": "application/json", **headers})
