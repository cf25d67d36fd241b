"""The proxies of the page about ingress, each with the configuration that stands there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from oa_testing.peers.authority import Authority
from oa_testing.postgres import REPOSITORY
from oa_testing.waiting import PATIENCE_S

PAGE = REPOSITORY / "docs" / "operations" / "ingress.md"
HOSTS: Mapping[str, str] = {
    "api.openagents.example": "localhost",
    "khala.openagents.example": "127.0.0.1",
    "workers.openagents.example": "127.0.0.2",
}
"""Host names of the page, and names that lead to this machine without DNS."""
INNER_NAMES = ("control-edge", "khala", "workers")
"""The names that certificates of the services have."""
_PORTS = re.compile(r"\b(?:443|8080|8090|9180|9181|9183|9444)\b")
_HTTP2_ON = (1, 25, 1)
_TRUST_POOL = (2, 8, 0)
_POLL_S = 0.02


@dataclass(frozen=True)
class Proxy:
    """A program of the page, in a folder of its own."""

    name: str
    folder: Path
    port: int

    @property
    def missing(self) -> str:
        """Why it can't run here; empty if it can."""
        if shutil.which(self.name) is None:
            return f"{self.name} is not installed"
        if self.name == "caddy" and self._version() < _TRUST_POOL:
            return "this Caddy is older than the one of the page"
        return ""

    def configure(self, ports: Mapping[int, int], trusted: bytes, site: Authority) -> None:
        """Write what the page says, with our files and ports. `trusted`: authorities of the services; `site` issues
        the certificate for clients."""
        self.folder.mkdir()
        (self.folder / "ca.crt").write_bytes(trusted)
        issued = site.issue(*HOSTS.values())
        issued.write(self.folder, "edge")
        (self.folder / "edge.pem").write_bytes(issued.certificate + issued.key)
        text = self._of_the_page().replace("/srv/openagents", str(self.folder))
        text = _PORTS.sub(lambda found: str({**ports, 443: self.port}[int(found[0])]), text)
        for name, here in HOSTS.items():
            text = text.replace(name, here)
        self._file.write_text(self._around(text))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until it listens, for a block."""
        commands = {
            "nginx": ("nginx", "-c", str(self._file), "-g", "daemon off;"),
            "haproxy": ("haproxy", "-W", "-f", str(self._file), "-p", str(self.folder / "pid")),
            "caddy": ("caddy", "run", "--config", str(self._file), "--adapter", "caddyfile"),
        }
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *commands[self.name], env=self._environment(), stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._listens():
                    assert process.returncode is None, (self.folder / "log").read_text("utf-8")
                    await asyncio.sleep(_POLL_S)
            yield
        finally:
            # Not a kill, which would leave its own children.
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def reload(self) -> None:
        """Have it read its configuration again, as its operators do."""
        if self.name == "haproxy":
            os.kill(int((self.folder / "pid").read_text("ascii")), signal.SIGUSR2)
            return
        commands = {
            "nginx": ("nginx", "-c", str(self._file), "-s", "reload"),
            "caddy": ("caddy", "reload", "--force", "--config", str(self._file), "--adapter", "caddyfile"),
        }
        with (self.folder / "log").open("ab") as log:
            done = await asyncio.create_subprocess_exec(
                *commands[self.name], env=self._environment(), stdout=log, stderr=log
            )
        assert await done.wait() == 0, (self.folder / "log").read_text("utf-8")

    @property
    def _file(self) -> Path:
        return self.folder / "configuration"

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}

    def _version(self) -> tuple[int, ...]:
        """nginx says it on stderr."""
        word = {"nginx": "-v", "caddy": "version"}[self.name]
        done = subprocess.run(
            [self.name, word], capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=os.environ
        )
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout + done.stderr)
        assert found is not None
        return tuple(map(int, found.groups()))

    def _of_the_page(self) -> str:
        found = re.findall(rf"^```{self.name}\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        text = "".join(map(str, found))
        if self.name == "nginx" and self._version() < _HTTP2_ON:
            return text.replace("listen 443 ssl;\n    http2 on;", "listen 443 ssl http2;")
        return text

    def _around(self, text: str) -> str:
        """What the page leaves to the machine."""
        if self.name == "caddy":
            ours = f"{{\n\tadmin unix//{self.folder}/admin\n\tauto_https off\n\thttps_port {self.port}\n}}\n"
            return ours + text
        if self.name == "nginx":
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            folders = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
            main = f"user root;\npid {self.folder}/pid;\nerror_log {self.folder}/log;\nevents {{ }}\n"
            return f"{main}http {{\naccess_log off;\n{folders}{text}}}\n"
        return text

    async def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False
