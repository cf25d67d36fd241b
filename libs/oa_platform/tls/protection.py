"""How a process protects its connections: with certificates, or not at all, which is meant for loopback.

    edge = await process.enter(edge_protection(settings.edge_tls, settings.tls, process.clock))
    await process.enter(HttpServer(app, address, variable="OA_HTTP_ADDRESS", protection=edge))

`process.protection` protects the connections with other services.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address, Target, is_loopback
from oa_platform.config.shared import OR_PLAIN, EdgeTlsSettings, TlsSettings, without_certificate
from oa_platform.tls.certificates import Certificates
from oa_platform.tls.names import check_has_name
from oa_platform.tls.pair import EDGE, SERVICE, PairFiles, Variables

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Protection:
    """Certificates, or None; and whether plaintext may go beyond loopback. `variables` are the settings for them."""

    certificates: Certificates | None = None
    allow_plaintext: bool = False
    variables: Variables = SERVICE

    def for_listener(self, address: Address, variable: str) -> Certificates | None:
        """The certificates for a listener on the address; raises Refusal(invalid_setting) if it may not do without."""
        self._check(address.is_loopback, f"{variable} is {address}", variable)
        return self.certificates

    def for_channel(self, target: Target | Address) -> Certificates | None:
        """The same for calls to another service. Raises Refusal(invalid_setting) for listed addresses, too, if there
        are certificates: gRPC compares those of all replicas with the whole list, and finds it in none."""
        self._check(target.is_loopback, f"calls go to {target}", "")
        if self.certificates is not None:
            check_has_name(target, self.variables.certificate)
        return self.certificates

    def check_url(self, url: str, variable: str, secure: str = "https") -> None:
        """Raise Refusal(invalid_setting) for a URL that is neither of the scheme `secure` nor loopback."""
        parts = urlsplit(url)
        shown = f"{variable} is {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if parts.scheme == secure or is_loopback(parts.hostname or "") or self._allowed(shown):
            return
        message = f"{shown}, which is neither {secure} nor loopback; give a URL with {secure}{OR_PLAIN}"
        raise Refusal("invalid_setting", message, field=variable)

    @property
    def trust(self) -> ssl.SSLContext:
        """The authorities that a client of a server with TLS trusts: the system's, and ours."""
        return self.certificates.current.trust if self.certificates else system_trust()

    def trust_for(self, url: str) -> ssl.SSLContext:
        """`trust` for an https:// URL. For http:// no authority is trusted, so none is read."""
        return self.trust if url.startswith("https:") else _no_trust()

    def _check(self, near: bool, what: str, variable: str) -> None:
        if self.certificates is not None or near or self._allowed(what):
            return
        needed = self.variables.certificate
        raise Refusal("invalid_setting", without_certificate(what, needed), field=variable or needed)

    def _allowed(self, what: str) -> bool:
        if self.allow_plaintext:
            _log.warning("plaintext", what=what, allowed_by="OA_ALLOW_PLAINTEXT")
        return self.allow_plaintext


@cache  # reading the system's authorities takes tens of milliseconds
def system_trust() -> ssl.SSLContext:
    """The authorities that the system trusts, or those of SSL_CERT_FILE. Read once, at the first use."""
    return ssl.create_default_context()


def outside_trust(url: str) -> ssl.SSLContext:
    """The authorities that a client of a server outside of the installation trusts: `system_trust`, or none for
    http://, because reading them takes time."""
    return system_trust() if url.startswith("https:") else _no_trust()


def _no_trust() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


PLAIN = Protection()
"""No certificates: for loopback."""


@asynccontextmanager
async def service_protection(settings: TlsSettings, clock: Clock) -> AsyncIterator[Protection]:
    """Protection of connections with other services. Raises Refusal(invalid_setting) for files that can't be used."""
    given = {
        SERVICE.certificate: settings.cert_file,
        SERVICE.key: settings.key_file,
        SERVICE.authorities: settings.ca_file,
    }
    if not _all_or_none(given):
        yield Protection(None, settings.allow_plaintext)
        return
    assert settings.cert_file
    assert settings.key_file
    files = PairFiles("service", SERVICE, settings.cert_file, settings.key_file, settings.ca_file)
    async with Certificates(files, clock, settings.reload_interval_ms) as certificates:
        yield Protection(certificates, settings.allow_plaintext)


@asynccontextmanager
async def edge_protection(settings: EdgeTlsSettings, service: TlsSettings, clock: Clock) -> AsyncIterator[Protection]:
    """Protection of connections with outside callers. Raises Refusal(invalid_setting) for files that can't be used."""
    if not _all_or_none({EDGE.certificate: settings.cert_file, EDGE.key: settings.key_file}):
        yield Protection(None, service.allow_plaintext, EDGE)
        return
    assert settings.cert_file
    assert settings.key_file
    files = PairFiles("edge", EDGE, settings.cert_file, settings.key_file)
    async with Certificates(files, clock, settings.reload_interval_ms) as certificates:
        yield Protection(certificates, service.allow_plaintext, EDGE)


def _all_or_none(given: Mapping[str, object]) -> bool:
    """Whether the files are set. Raises Refusal(invalid_setting) when only some are."""
    missing = [name for name, file in given.items() if not file]
    if missing and len(missing) < len(given):
        message = f"{' and '.join(missing)} must be set too; set all of {', '.join(given)}, or none"
        raise Refusal("invalid_setting", message, field=missing[0])
    return not missing
