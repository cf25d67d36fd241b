"""Whom control trusts among servers outside of the installation: whoever the system trusts, or SSL_CERT_FILE names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from email.headerregistry import Address
from pathlib import Path
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_platform.system.clock import SystemClock
from oa_platform.tls import protection
from oa_testing.peers.authority import Authority, server_context
from oa_testing.peers.listener import Listener
from oa_testing.waiting import PATIENCE_S
from services.control.mail.domain.letters import Letter, Outcome
from services.control.mail.door import SmtpCarrier, SmtpRelay
from services.control.provider_sign_in.domain import Asked
from services.control.provider_sign_in.door.oidc import OidcClient, OidcProvider
from services.control.routes.door.legacy import Legacy
from services.control.routes.limits import LegacyLimits

SENDER = Address("OpenAgents", "codes", "example.org")
LETTER = Letter("mal_1", "ada@example.org", "Your sign-in code", "Your code: 12345678", {"code": "12345678"})
LIMITS = LegacyLimits(
    max_requests=9, max_requests_of_network=9, max_body_bytes=9, connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S
)
REQUEST = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [(b"host", b"x")],
    "scheme": "http",
    "client": ("127.0.0.1", 1),
    "state": {},
}
ASKED = Asked("http://127.0.0.1:4711/callback", state="s" * 43, nonce="n" * 43, verifier="v" * 43)


async def ask_legacy(port: int) -> None:
    async def nothing(*_: Any) -> Any:
        await asyncio.sleep(0)

    async with Legacy(f"https://127.0.0.1:{port}", LIMITS, ()) as legacy:
        with contextlib.suppress(Refusal):
            await legacy(REQUEST, nothing, nothing)


async def ask_oidc(port: int) -> None:
    client = OidcClient(f"https://127.0.0.1:{port}", "OIDC", "ours", "", "none", PATIENCE_S)
    with pytest.raises(Refusal, match="provider_unavailable"):
        await OidcProvider(client, SystemClock()).authorization_url(ASKED)


async def ask_workos(port: int) -> None:
    from services.control.provider_sign_in.door.workos import WorkOsClient, WorkOsProvider

    client = WorkOsClient("WorkOS", f"https://127.0.0.1:{port}", "ours", "sk_x", "", PATIENCE_S)
    async with WorkOsProvider(client) as workos:
        with pytest.raises(Refusal, match="provider_unavailable"):
            await workos.identity(ASKED, "code")


async def send_mail(port: int) -> None:
    relay = SmtpRelay(host="127.0.0.1", port=port, sender=SENDER, tls="implicit")
    assert await SmtpCarrier(relay).carry(LETTER) is Outcome.LATER


CLIENTS = {"legacy": ask_legacy, "OpenID Connect": ask_oidc, "WorkOS": ask_workos, "mail": send_mail}


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that only SSL_CERT_FILE names."""
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path)))
    protection.system_trust.cache_clear()
    yield authority
    protection.system_trust.cache_clear()


@pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("is_ours", [True, False], ids=["named", "unknown"])
async def test_an_authority_of_the_company_is_trusted_if_the_environment_names_it(
    authority: Authority, tmp_path: Path, ask: Callable[[int], Awaitable[None]], is_ours: bool
) -> None:
    came = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1  # only after a handshake
        writer.close()

    tls = server_context(tmp_path, (authority if is_ours else Authority()).issue())
    async with Listener(serve, tls=tls) as server:
        await ask(server.port)
    assert bool(came) is is_ours


async def test_without_tls_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all that the system trusts takes tens of milliseconds."""

    def read() -> ssl.SSLContext:
        raise AssertionError

    monkeypatch.setattr(protection, "system_trust", read)
    monkeypatch.setattr("services.control.mail.door.system_trust", read)
    assert protection.outside_trust("http://example.org").get_ca_certs() == []
    relay = SmtpRelay(host="127.0.0.1", port=9, sender=SENDER, tls="none")
    assert await SmtpCarrier(relay).carry(LETTER) is Outcome.LATER
