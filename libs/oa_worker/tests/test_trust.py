"""A worker on its way to a site with TLS: whom it trusts, over real handshakes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from oa_base.refusal import Refusal
from oa_testing.peers.authority import Authority, Issued, server_context
from oa_testing.waiting import eventually
from oa_worker import Worker
from oa_worker.sdk.notices import Detached, Notice
from oa_worker.sdk.transport.tokens import ApiKeyTokens
from oa_worker.tests.fake_edge import KEY, edge, granted
from oa_worker.tests.fake_runtime import FakeTokens
from oa_worker.tests.scripts import QUICK, Patient, numbers, scripted

AUTHORITY, FOREIGN = Authority(), Authority("Another authority")


def _credentials(issued: Issued) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(issued.key, issued.certificate)])


async def test_a_runtime_with_tls_is_attached_to(tmp_path: Path) -> None:
    async with scripted().running(_credentials(AUTHORITY.issue())) as runtime:
        ca_file = AUTHORITY.write(tmp_path)
        worker = Worker("test", [Patient()], FakeTokens(runtime), limits=QUICK, ca_file=ca_file)
        task = asyncio.create_task(worker.run())
        await runtime.until(lambda: numbers(runtime) == ["0"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("issued", "trusts", "advised"),
    [
        pytest.param(AUTHORITY.issue(), None, True, id="no authority of ours"),
        pytest.param(AUTHORITY.issue(), FOREIGN, True, id="another authority"),
        pytest.param(AUTHORITY.issue("runtime.test"), AUTHORITY, False, id="another name"),
    ],
)
async def test_a_runtime_that_is_not_trusted_gets_no_token(
    tmp_path: Path, issued: Issued, trusts: Authority | None, advised: bool
) -> None:
    said: list[Notice] = []
    async with scripted().running(_credentials(issued)) as runtime:
        ca_file = trusts.write(tmp_path) if trusts else None
        tokens = FakeTokens(runtime)
        worker = Worker("test", [Patient()], tokens, limits=QUICK, ca_file=ca_file, notify=said.append)
        task = asyncio.create_task(worker.run())
        await eventually(lambda: len(said) > 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert runtime.tokens == []
    for notice in said:
        assert isinstance(notice, Detached)
        assert notice.refusal.reason == "unavailable"
        assert ("set OA_CA_FILE" in notice.refusal.message) == advised


async def test_a_key_is_exchanged_by_https(tmp_path: Path) -> None:
    with edge(200, granted(address="grpcs://127.0.0.1:9081"), tls=server_context(tmp_path, AUTHORITY.issue())) as (
        url,
        seen,
    ):
        token = await ApiKeyTokens(url, KEY, ca_file=AUTHORITY.write(tmp_path)).get()
        assert (token.token, token.runtime_address) == ("token", "grpcs://127.0.0.1:9081")
        for ca_file in (None, FOREIGN.write(tmp_path, "foreign")):
            with pytest.raises(Refusal, match=r"can't be reached.*CERTIFICATE_VERIFY_FAILED.*set OA_CA_FILE"):
                await ApiKeyTokens(url, KEY, ca_file=ca_file).get()
    assert len(seen) == 1


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff"])
async def test_a_file_of_authorities_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(Refusal, match="can't be used") as refused:
        ApiKeyTokens("https://control.test", KEY, ca_file=ca_file)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_CA_FILE")
