"""A whole site where every connection has TLS, and services are known by their certificates alone."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from oa_localstack.installation.environment import mail_file
from oa_localstack.installation.ports import Ports
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.services import ServiceProcess, python_module
from oa_platform.config.callers import ACCEPTED, SERVICES
from oa_testing.peers.authority import Authority
from oa_testing.postgres import ON_FAST, Database, free_port
from oa_testing.waiting import PATIENCE_S

INSIDE, OUTSIDE = Authority("Services"), Authority("Site")
OFFSETS = (0, 10, 500, 1000, 1001, 1002, 1003, 1100, 1101, 1102, 1103)
WORKERS = 500


class TlsSite:
    """The processes and their files. What a `World` needs of a stack is here under the same names."""

    def __init__(
        self, database: Database, home: Path, *, names: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        """`names` are in every certificate beside those of loopback; `settings` are for every service."""
        self.home = home
        self._names = names
        self._settings = settings or {}
        self._base = free_port(OFFSETS)
        self.ports = Ports.from_env({}, self._base)
        self.worker_port = self._base + WORKERS
        self._secrets = load_or_create(home / "secrets")
        self._database = database
        self.outside_ca = OUTSIDE.write(home, "outside-ca")
        self.urls = {"control": f"https://localhost:{self.ports.control_http}"}
        self.env = {"OA_CONTROL_URL": self.urls["control"], "OA_CA_FILE": str(self.outside_ca)}
        self.issue()
        self._processes = [self._process(service) for service in SERVICES]

    def log_path(self, name: str) -> Path:
        """Where a process writes its log."""
        return self.home / f"{name}.log"

    def issue(self) -> None:
        """New certificates for everybody, and new keys."""
        for service in SERVICES:
            names = ("localhost", "127.0.0.1", f"spiffe://site.test/{service}", *self._names)
            INSIDE.issue(*names).write(self.home, service)
        OUTSIDE.issue("localhost", *self._names).write(self.home, "edge")
        INSIDE.write(self.home, "inside-ca")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until all are ready; control comes first, since the others fetch its keys."""
        try:
            for process in self._processes:
                await process.start()
            async with asyncio.timeout(2 * PATIENCE_S):
                await asyncio.gather(*(self._ready(process) for process in self._processes))
            yield
        finally:
            await asyncio.gather(*(process.stop() for process in self._processes))

    async def metrics(self, service: str) -> str:
        """What Prometheus would scrape."""
        port = self._processes[SERVICES.index(service)].ops_port
        async with self._ops() as client:
            return (await client.get(f"https://localhost:{port}/metrics")).text

    async def until_renewed(self, taken: int) -> None:
        """Until each service has taken up so many new certificates: its own, and the edge's where it has one."""
        async with asyncio.timeout(PATIENCE_S):
            for service in SERVICES:
                for certificate in ("service", *(() if service == "projector" else ("edge",))):
                    line = f'oa_tls_reloads_total{{certificate="{certificate}",outcome="ok"}} {taken}.0'
                    while line not in await self.metrics(service):
                        await asyncio.sleep(0.05)

    async def _ready(self, process: ServiceProcess) -> None:
        async with self._ops() as client:
            while True:
                assert process.pid is not None, process.log_path.read_text()
                try:
                    if (await client.get(f"https://localhost:{process.ops_port}/readyz")).is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def _ops(self) -> httpx.AsyncClient:
        trust = ssl.create_default_context(cadata=INSIDE.certificate.decode())
        return httpx.AsyncClient(verify=trust, trust_env=False, timeout=PATIENCE_S)

    def _process(self, service: str) -> ServiceProcess:
        return ServiceProcess(
            name=service,
            argv=python_module(f"services.{service}"),
            env=self._environment(service),
            log_path=self.log_path(service),
            ops_port=getattr(self.ports, f"{service.removeprefix('khala_')}_ops"),
            stop_timeout_s=PATIENCE_S,
        )

    def _environment(self, service: str) -> dict[str, str]:
        ports, home = self.ports, self.home
        accepted = ",".join(f"{caller}=spiffe://site.test/{caller}" for caller in ACCEPTED[service])
        databases = {name: getattr(self._database, name, "") for name in ("control", "runtime", "projector")}
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("OA_")},
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "OA_PORT_BASE": str(self._base),
            # No tokens: a service is known by its certificate, or it isn't.
            "OA_SERVICE_TOKEN": "nobody takes it",
            "OA_ACCEPTED_CERTIFICATES": accepted,
            "OA_TLS_CERT_FILE": str(home / f"{service}.crt"),
            "OA_TLS_KEY_FILE": str(home / f"{service}.key"),
            "OA_TLS_CA_FILE": str(home / "inside-ca.crt"),
            "OA_EDGE_TLS_CERT_FILE": str(home / "edge.crt"),
            "OA_EDGE_TLS_KEY_FILE": str(home / "edge.key"),
            "OA_TLS_RELOAD_MS": "50",
            # Control's keys come from its edge, whose authority a service trusts as the machine does.
            "SSL_CERT_FILE": str(self.outside_ca),
            "OA_CONTROL_URL": self.urls["control"],
            "OA_CONTROL_GRPC": f"localhost:{ports.control_grpc}",
            "OA_RUNTIME_GRPC": f"localhost:{ports.runtime_grpc}",
            "OA_PROJECTOR_GRPC": f"localhost:{ports.projector_grpc}",
            # Beyond loopback, which without certificates would be refused.
            "OA_GRPC_ADDRESS": f"0.0.0.0:{getattr(ports, service.removeprefix('khala_') + '_grpc')}",
            "OA_WORKER_GRPC_ADDRESS": f"127.0.0.1:{self.worker_port}",
            "OA_RUNTIME_PUBLIC_GRPC": f"grpcs://localhost:{self.worker_port}",
            "OA_KHALA_URL": f"wss://localhost:{ports.khala_ws}/khala/v1/ws",
            "OA_DATABASE_URL": databases.get(service, ""),
            **ON_FAST,
            "OA_SIGNING_KEY_FILE": str(self._secrets.signing_key_file),
            "OA_HMAC_KEY_FILE": str(self._secrets.hmac_key_file),
            "OA_RECEIPT_KEY_FILE": str(self._secrets.receipt_key_file),
            "OA_DEV_MAIL_FILE": str(mail_file(home)),
            **self._settings,
        }
