"""A whole stack whose parts a test can stop and start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from oa_localstack.installation.environment import mail_file, service_environment
from oa_localstack.installation.ports import HOST
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.services import ServiceProcess, ask, python_module
from oa_localstack.stack import Stack
from oa_testing.fork_server import PYTHON
from oa_testing.waiting import PATIENCE_S

PATIENT_START = dict.fromkeys(
    ("OA_POSTGRES_START_TIMEOUT_S", "OA_DATABASE_START_TIMEOUT_S", "OA_START_DEADLINE_S", "OA_READY_TIMEOUT_S"),
    str(PATIENCE_S),
)
"""Variables of a stack in tests that aren't about its start: a slow machine takes longer than the defaults."""
_POLL_S = 0.05


class StackUnderTest(Stack):
    """A stack whose processes can be ended on purpose, without supervision starting them again.

    To see supervision at work, kill `pid(name)` instead.
    """

    interpreter = PYTHON

    def __init__(self, home: Path | None = None, *, env: Mapping[str, str] | None = None, **options: Any) -> None:
        """See `Stack`; `env` overrides `PATIENT_START`."""
        super().__init__(home, env={**PATIENT_START, **(os.environ if env is None else env)}, **options)

    @property
    def env(self) -> dict[str, str]:
        """The variables that let a client (`oa`, a worker) find this stack. Holds no secret."""
        return {
            "OA_HOME": str(self.home),
            "OA_CONTROL_URL": self.urls["control"],
            "OA_KHALA_URL": self.urls["khala"],
            "OA_RUNTIME_GRPC": f"{HOST}:{self.ports.runtime_grpc}",
            "OA_DEV_MAIL_FILE": str(mail_file(self.home)),
        }

    def pid(self, name: str) -> int | None:
        """The process id of a service or of Postgres while it runs."""
        return self._children[name].pid

    def restarts(self, name: str) -> int:
        """How often supervision has started `name` again."""
        return self._supervisions[name].restarts

    def kill(self, name: str) -> None:
        """SIGKILL a service or Postgres and leave it down until `start_service`."""
        self._watches[name].cancel()
        self._children[name].kill()
        self._write_state()

    async def stop_service(self, name: str) -> None:
        """SIGTERM a service (or stop Postgres) and leave it down until `start_service`."""
        await self._unwatch(name)
        await self._children[name].stop()
        self._write_state()

    async def start_service(self, name: str, *, wait_ready: bool = True) -> None:
        """Start a process that `kill` or `stop_service` ended; returns when it is ready."""
        await self._unwatch(name)
        child = self._children[name]
        await child.start()
        if wait_ready and isinstance(child, ServiceProcess):
            await child.until_ready(self.settings.ready_timeout_s)
        self._watch(name)
        self._write_state()

    @asynccontextmanager
    async def replica(self, service: str, settings: Mapping[str, str]) -> AsyncIterator[None]:
        """Run one more replica of a service for the block, which begins when the replica is ready.

        `settings` override those of the stack's own, and have addresses for each port of the service.
        """
        secrets = load_or_create(self.home / "secrets")
        env = service_environment(service, ports=self.ports, secrets=secrets, home=self.home, inherited=os.environ)
        ops_port = int(settings["OA_OPS_ADDRESS"].rpartition(":")[2])
        with self.log_path(f"{service}-{ops_port}").open("ab") as log:
            command = python_module(f"services.{service}", self.interpreter)
            process = await asyncio.create_subprocess_exec(*command, env={**env, **settings}, stdout=log, stderr=log)
        try:
            async with asyncio.timeout(self.settings.ready_timeout_s):
                while not (await ask(ops_port)).ready:
                    await asyncio.sleep(_POLL_S)
            yield
        finally:
            process.terminate()
            await process.wait()
