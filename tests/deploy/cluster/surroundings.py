"""What an installation finds outside of the manifests, real and on loopback: PostgreSQL, a mail relay, a bucket."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

from apps.cli.admin.database import prepare
from apps.cli.admin.secrets import new_secrets, role_secret
from oa_localstack.installation.environment import mail_file
from oa_localstack.postgres.server import PostgresServer
from oa_platform.postgres.planes import ROLES
from oa_testing.peers.authority import Authority, server_context
from oa_testing.peers.listener import Listener
from oa_testing.postgres import free_port
from services.runtime.archive.tests.s3_server import BUCKET, s3_server
from tests.deploy.cluster.sandbox import Mount

SMTP_PORT = 587
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
CHANGED = {"SSL_CERT_FILE": _AUTHORITIES, "OA_ARCHIVE_URL": f"s3://{BUCKET}/runs"}
"""All that pods find otherwise than their manifests say: whom the machine trusts, and the bucket's name."""


@dataclass(frozen=True)
class Surroundings:
    """All of it. `site`: the authority that everybody outside trusts, mail relays and clients alike."""

    site: Authority
    secrets: dict[str, dict[str, str]]
    home: Path

    def machine(self, dns: str) -> tuple[Mount, ...]:
        """What a node puts into every pod."""
        home = self.home / f"machine-{dns}"
        home.mkdir()
        resolv, hosts = home / "resolv.conf", home / "hosts"
        resolv.write_text(f"nameserver {dns}\n")
        hosts.write_text("127.0.0.1 localhost\n")
        authorities = self.site.write(self.home, "site-ca")
        for file in (resolv, hosts, authorities):
            file.chmod(0o644)
        return (
            Mount(resolv, "/etc/resolv.conf"),
            Mount(hosts, "/etc/hosts"),
            Mount(authorities, _AUTHORITIES),
        )


@asynccontextmanager
async def surroundings(home: Path) -> AsyncIterator[Surroundings]:
    """A PostgreSQL with an installer's roles and secrets, and a bucket with its own."""
    server = PostgresServer(
        root=home / "postgres",
        port=free_port(),
        superuser_password="only-for-this-test",
        log_path=home / "postgres.log",
    )
    await server.start()
    try:
        secrets = new_secrets(f"127.0.0.1:{server.port}")
        passwords = {role: secrets.pop(role_secret(role))["password"] for role in ROLES}
        await prepare({"OA_ADMIN_DATABASE_URL": server.dsn()}, passwords)
        with s3_server(home) as bucket:
            secrets["openagents-archive"] = bucket.variables()
            yield Surroundings(Authority("Site"), secrets, home)
    finally:
        await server.stop()


@asynccontextmanager
async def mail_relay(address: str, host: str, site: Authority, home: Path) -> AsyncIterator[None]:
    """As much of an SMTP server as a client needs that wants STARTTLS; codes go to the stack's mail file."""
    (home / host).mkdir()
    context = server_context(home / host, site.issue(host))

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        while line := await reader.readline():
            await _answer(line[:4].upper(), reader, writer, context, mail_file(home))

    async with Listener(session, host=address, port=SMTP_PORT):
        yield


async def _answer(
    verb: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, file: Path
) -> None:
    if verb == b"DATA":
        writer.write(b"354 go on\r\n")
        _keep(await reader.readuntil(b"\r\n.\r\n"), file)
    if verb == b"STAR":
        writer.write(b"220 go on\r\n")
        await writer.start_tls(context)
        return
    protected = writer.get_extra_info("ssl_object") is not None
    hello = b"250 relay\r\n" if protected else b"250-relay\r\n250 STARTTLS\r\n"
    refused = b"530 STARTTLS first\r\n" if verb == b"MAIL" and not protected else b"250 ok\r\n"
    writer.write({b"EHLO": hello, b"QUIT": b"221 bye\r\n"}.get(verb, refused))
    await writer.drain()


def _keep(message: bytes, file: Path) -> None:
    mail = message_from_bytes(message)
    found = re.search(r"\d{8}", str(mail.get_payload()))
    assert found is not None
    with file.open("a") as kept:
        kept.write(json.dumps({"email": mail["To"], "code": found[0]}) + "\n")
