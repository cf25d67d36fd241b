"""The stack: Postgres, migrations and the four services, started in order, supervised, stopped in order.

stack = Stack(Path(".oa"))
await stack.start()          # returns when every service says that it is ready
...
await stack.stop()
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from oa_base.refusal import Refusal
from oa_localstack.files import hold
from oa_localstack.installation.environment import khala_url, role_dsn, service_environment
from oa_localstack.installation.ports import HOST, Ports, ops_use
from oa_localstack.installation.secrets import Secrets, load_or_create
from oa_localstack.installation.state import ProcessMark, StackState, end_strays, remove_state, state_path, write_state
from oa_localstack.postgres.placement import data_root, is_cleaned, marker_path
from oa_localstack.postgres.server import DURABLE, POSTGRES, SUPERUSER, PostgresServer, Settings
from oa_localstack.processes.account import postgres_account
from oa_localstack.processes.child import Child
from oa_localstack.processes.supervision import Change, Event, RestartPolicy, Supervision
from oa_localstack.services import ServiceProcess, python_module
from oa_localstack.settings import load_settings
from oa_platform.config.callers import SERVICES
from oa_platform.postgres.planes import OWNER, PLANES
from oa_platform.postgres.preparation import migrate_service, prepare

STOP_ORDER = ("khala_gateway", "control", "projector", "runtime", POSTGRES)
"""Edges first, so that nobody calls a process that is already gone; the database comes last."""


class Stack:
    """One stack with everything that it owns below `home`. Use it from a thread that lives as long as the stack."""

    interpreter = sys.executable
    """What runs the services."""

    def __init__(
        self,
        home: Path | None = None,
        *,
        port_base: int | None = None,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
        postgres_settings: Settings = DURABLE,
        policy: RestartPolicy | None = None,
        on_event: Callable[[Event], None] | None = None,
        forget_data: bool = False,
    ) -> None:
        """`home` and `port_base` override `env` (default: our environment). `overrides`: service -> variables for it
        alone. `commands`: service -> another program in its place (a debugger's, an older release's). `forget_data`:
        take the database that is there, or an empty one, although the stack had another.

        Raises Refusal(invalid_setting) for invalid settings.
        """
        self._inherited = dict(os.environ if env is None else env)
        self.settings = load_settings(self._inherited)
        self.ports = Ports.from_env(self._inherited, port_base)
        self.home = (home or self.settings.home).absolute()
        self._overrides = overrides or {}
        self._commands = commands or {}
        self._postgres_settings = postgres_settings
        self._policy = policy or RestartPolicy(attempts=self.settings.restart_attempts)
        self._forget_data = forget_data
        self._on_event = on_event or (lambda event: None)
        self._children: dict[str, Child] = {}
        self._supervisions: dict[str, Supervision] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._given_up: asyncio.Queue[Event]
        self._lock: IO[str] | None = None

    # ------------------------------------------------------------------ what there is

    @property
    def urls(self) -> dict[str, str]:
        """Where to reach the stack: "control" (public HTTP edge) and "khala" (WebSocket)."""
        return {"control": f"http://{HOST}:{self.ports.control_http}", "khala": khala_url(self.ports)}

    def log_path(self, name: str) -> Path:
        """The log of a service or of Postgres."""
        return self.home / "logs" / f"{name}.log"

    # ------------------------------------------------------------------ up and down

    async def start(self) -> None:
        """Start everything; returns when all services are ready.

        Raises Refusal: port_in_use, start_failed (with the last log lines of what failed), migration_refused,
        already_exists when a stack already runs in `home`. After a refusal nothing is left running.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        if self._lock is not None or (lock := hold(self.home / "lock")) is None:
            message = f"a stack already runs in {self.home}; stop it with `oa down`, or set OA_HOME and OA_PORT_BASE"
            raise Refusal("already_exists", message)
        self._lock = lock
        try:
            await asyncio.to_thread(end_strays, self.home)
            self._write_state()
            self.ports.ensure_free()
            secrets = self._prepare_home()
            await self._start_postgres(secrets)
            await self._start_services(secrets)
            self._given_up = asyncio.Queue()
            for name in self._children:
                self._watch(name)
            self._write_state()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drain and stop every service, then Postgres. Idempotent."""
        if self._lock is None:
            return
        await self._unwatch(*self._supervisions)
        for name in STOP_ORDER:
            if name in self._children:
                await self._children[name].stop()
                self._report(Event(name, Change.STOPPED))
        self._supervisions.clear()
        remove_state(self.home)
        self._lock.close()
        self._lock = None

    async def wait_given_up(self) -> Event:
        """Wait until supervision gives up on a process, and return its event. Each event goes to one waiter, once."""
        return await self._given_up.get()

    # ------------------------------------------------------------------ steps of a start

    def _prepare_home(self) -> Secrets:
        for folder in ("logs", "cache"):  # for the owner alone, because the console mailer's sign-in codes are in a log
            (self.home / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        return load_or_create(self.home / "secrets")

    async def _start_postgres(self, secrets: Secrets) -> None:
        account = postgres_account(self.settings.postgres_user)
        root = data_root(self.home, account, forget=self._forget_data)
        marker = marker_path(self.home)
        if self._forget_data:
            marker.unlink(missing_ok=True)
        postgres = PostgresServer(
            root=root,
            marker=marker,
            port=self.ports.postgres,
            superuser_password=secrets.database_passwords[SUPERUSER],
            log_path=self.log_path(POSTGRES),
            settings=self._postgres_settings,
            account=account,
            start_timeout_s=self.settings.postgres_start_timeout_s,
        )
        self._children[POSTGRES] = postgres
        await postgres.start()
        outside = (self.home / "postgres").is_symlink() and is_cleaned(root)
        warning = f"with data in {root}, which the system may clean: move it, and the link to it" if outside else ""
        self._report(Event(POSTGRES, Change.STARTED, warning))
        await prepare(postgres.dsn(), secrets.database_passwords)
        for plane in PLANES:
            await migrate_service(role_dsn(OWNER, self.ports, secrets), plane.service)

    async def _start_services(self, secrets: Secrets) -> None:
        services = [self._service(name, secrets) for name in SERVICES]
        for service in services:
            self._children[service.name] = service
            await service.start()
        self._write_state()
        waits = [asyncio.create_task(self._until_ready(service)) for service in services]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    def _service(self, name: str, secrets: Secrets) -> ServiceProcess:
        env = service_environment(name, ports=self.ports, secrets=secrets, home=self.home, inherited=self._inherited)
        if self._postgres_settings != DURABLE:
            env["OA_DATABASE_MAY_LOSE_COMMITS"] = "true"
        env |= self._overrides.get(name, {})
        return ServiceProcess(
            name=name,
            argv=tuple(self._commands.get(name, python_module(f"services.{name}", self.interpreter))),
            env=env,
            log_path=self.log_path(name),
            ops_port=self.ports.of(ops_use(name)),
            stop_timeout_s=self.settings.stop_timeout_s,
        )

    async def _until_ready(self, service: ServiceProcess) -> None:
        await service.until_ready(self.settings.ready_timeout_s)
        self._report(Event(service.name, Change.STARTED))

    def _watch(self, name: str) -> None:
        one = Supervision(self._children[name], self._policy, self._report, self.settings.max_log_bytes)
        one = self._supervisions.setdefault(name, one)
        self._watches[name] = asyncio.create_task(one.run(), name=f"supervise {name}")

    async def _unwatch(self, *names: str) -> None:
        """Stop watching `names`: from here on, their deaths are no accidents."""
        watches = [self._watches[name] for name in names]
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    # ------------------------------------------------------------------ bookkeeping

    def _report(self, event: Event) -> None:
        if event.change is Change.RESTARTED:
            try:
                self._write_state()
            except OSError as error:  # a full disk ends no supervision
                unsaid = f"{state_path(self.home)} can't be written: {error.strerror}"
                event = replace(event, detail=f"{event.detail}; {unsaid}")
        if event.change is Change.GAVE_UP:
            self._given_up.put_nowait(event)
        self._on_event(event)

    def _write_state(self) -> None:
        pids = {name: self._children[name].pid for name in (*SERVICES, POSTGRES) if name in self._children}
        marks = {name: ProcessMark.of(pid) for name, pid in pids.items() if pid is not None}
        supervisor = ProcessMark.of(os.getpid())
        assert supervisor is not None
        state = StackState(
            supervisor=supervisor,
            phase="ready" if self._supervisions else "starting",
            ports=asdict(self.ports),
            urls=self.urls,
            processes={name: mark for name, mark in marks.items() if mark is not None},
            restarts={name: one.restarts for name, one in self._supervisions.items()},
        )
        write_state(self.home, state)
