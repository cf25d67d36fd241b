'''How a service starts, runs and stops. Every service's `__main__` looks like this one:

    """The runtime: the authority of runs and their log. Run with `python -m services.runtime`."""

    before_imports()  # see `first`

    async def start(settings: RuntimeSettings, process: Process) -> None:
        clock = process.clock
        watch = ClockWatch("runtime", clock, settings.clock)
        process.readiness.add("clock", watch.check)
        postgres = await process.enter(Postgres(settings.database, "runtime"))
        watch.compare_with_database(postgres)
        process.readiness.add("postgres", postgres.check)
        await check_schema(settings.database, "runtime", Path(__file__).parent / "migrations")
        keys = await process.enter(JwksCache(settings.jwks, clock, watch=watch, protection=process.protection))
        process.readiness.add("keys", keys.check)

        sequencer = Sequencer(LogStore(postgres), clock)
        process.background("sequencer", sequencer.run())

        verifier = TokenVerifier(keys, clock, watch)
        authenticator = Authenticator("runtime", settings.identity.accepted_services, verifier)
        server = GrpcServer(settings.grpc, authenticator, process.protection)
        server.register(add_RunServiceServicer_to_server, RunApi(sequencer))
        await process.enter(server)

    if __name__ == "__main__":
        run_service(RuntimeSettings, start)

Parts are left in the reverse order of entering: servers, entered at the end, drain while everything below them still
works. On SIGTERM, SIGINT or SIGHUP, a service first reports itself unready (/readyz and gRPC health); its listeners
still take new work for `OA_LAME_DUCK_S`, so that balancers can notice; then it drains. A second signal ends that wait;
a signal during the drain ends the process at once (`oa_platform.process.signals`).

Exit codes: 0 after a drain, 1 when something broke, or when the drain or what follows it took too long, 2 when the
start was refused (one line on stderr says why), 130 after a signal in the drain.
'''

from __future__ import annotations

import asyncio
import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NoReturn, Protocol, TypeVar, runtime_checkable

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_base.visible import visible
from oa_platform.config.loading import load, unknown_variables
from oa_platform.config.shared import ServiceSettings
from oa_platform.health.failures import refusal_of
from oa_platform.health.readiness import Readiness
from oa_platform.health.start_wait import said_of_start_waits
from oa_platform.http.ops import ops_server
from oa_platform.http.proxies import forget_proxies
from oa_platform.postgres.roles import check_roles
from oa_platform.process.descriptors import allow_all_descriptors, watch_descriptors
from oa_platform.process.gc_pauses import calm_garbage_collection
from oa_platform.process.signals import stop_signals
from oa_platform.system.clock import SystemClock
from oa_platform.tasks.ending import cancel_and_wait
from oa_platform.tasks.events import until_set
from oa_platform.telemetry.logging import configure_logging
from oa_platform.telemetry.tracing import configure_tracing
from oa_platform.tls.protection import PLAIN, service_protection

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_REFUSED = 2
_LATE_PART_S = 0.2
"""Time that each part has to stop once the drain's deadline has passed."""

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")
_log = structlog.get_logger(__name__)


@runtime_checkable
class Advertised(Protocol):
    """A part that tells balancers by itself whether it wants new work."""

    async def withdraw(self) -> None:
        """Tell balancers that it wants no new work, and go on serving what comes."""


class Process:
    """The parts of a service while it runs. Its `clock` is the only one that they use."""

    def __init__(self, readiness: Readiness, clock: Clock | None = None) -> None:
        self.readiness = readiness
        self.clock: Clock = clock or SystemClock()
        self.protection = PLAIN
        """The protection of its connections with other services."""
        self.stopping = asyncio.Event()
        """Set when the process was told to stop."""
        self._hurry = asyncio.Event()
        self._waits = False
        self._advertised: list[Advertised] = []
        self._parts = AsyncExitStack()
        self._failure: BaseException | None = None

    async def enter(self, part: AbstractAsyncContextManager[T]) -> T:
        """Start a part of the service; it is stopped by the drain, in reverse order."""
        if isinstance(part, Advertised):
            self._advertised.append(part)
        return await self._parts.enter_async_context(part)

    def background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until the drain reaches it, and cancel it then. If it fails, the process stops and exits 1."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._parts.push_async_callback(cancel_and_wait, task)  # `_ended` has logged its error

    def stop(self, *, waits: bool = False) -> None:
        """Begin to stop. `waits`: as a lame duck at first."""
        self._waits = waits
        self.stopping.set()

    def hurry(self) -> bool:
        """Begin the drain now if the process waits as a lame duck, or is about to; False if it doesn't."""
        waits, self._waits = self._waits, False
        self._hurry.set()
        return waits

    async def lame_duck(self, wait_s: float) -> None:
        """Report the process as unready, and go on serving for `wait_s`, or until told to hurry."""
        self.readiness.phase = "draining"
        for part in self._advertised:
            await part.withdraw()
        _log.info("lame_duck", wait_s=wait_s)
        await until_set(self._hurry, wait_s)
        self._waits = False

    @property
    def failed(self) -> bool:
        """Whether a background task failed."""
        return self._failure is not None

    async def close(self) -> None:
        """Stop all parts."""
        await self._parts.aclose()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None
        if task.cancelled():
            # By the drain, or else by what it waited for: then its work would not be done any more.
            error = None if task.cancelling() else RuntimeError("it was canceled, and nobody had asked for that")
        else:
            error = task.exception()
        if error is not None and self._failure is None:
            self._failure = error
            _log.error("background_failed", task=task.get_name(), exc_info=error)
            self.stopping.set()
            self._hurry.set()


def run_service(
    settings_class: type[S],
    start: Callable[[S, Process], Awaitable[None]],
    clock: Clock | None = None,
) -> NoReturn:
    """Run the service until a signal ends it, and exit. See the module's docstring."""
    _leave_no_core_file()
    allow_all_descriptors()
    faulthandler.enable()  # a crash writes to stderr where every thread was; names only, no values
    try:
        settings = load(settings_class, os.environ)
    except Refusal as refusal:
        sys.exit(_report(settings_class.service, refusal))
    forget_proxies(os.environ)
    configure_logging(settings.log, settings.service)
    for variable, similar in unknown_variables(os.environ).items():
        _log.warning("unknown_setting", variable=variable, similar=similar)
    end_tracing = configure_tracing(settings.service, os.environ)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(_run(settings, start, clock))
    finally:
        end_tracing()
    sys.exit(code)


def _leave_no_core_file() -> None:
    """Let no crash write this process's memory, which holds keys and tokens, to a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where there is no wheel of it, asyncio's own loop is used
        return None
    return uvloop.new_event_loop


async def _run(settings: S, start: Callable[[S, Process], Awaitable[None]], clock: Clock | None) -> int:
    readiness = Readiness(settings.ops.check_timeout_s)
    process = Process(readiness, clock)

    def told(number: signal.Signals) -> None:
        _log.info("signal", signal=number.name)
        process.stop(waits=settings.process.lame_duck_s > 0 and readiness.phase == "running")

    with stop_signals(told, lambda number: _log.warning("second_signal", signal=number.name), skip=process.hurry):
        return await _started_and_drained(settings, start, process)


async def _started_and_drained(settings: S, start: Callable[[S, Process], Awaitable[None]], process: Process) -> int:
    readiness = process.readiness
    try:
        process.background("descriptors", watch_descriptors())
        process.protection = await process.enter(service_protection(settings.tls, process.clock))
        await process.enter(ops_server(settings.ops, settings.service, readiness, process.protection))
        if not await _start(settings, start, process):
            return await _drain(process, settings.process.drain_deadline_s)
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        refusal = refusal_of(error)
        code = _report(settings.service, refusal) if refusal else EXIT_BROKEN
        if refusal is None:
            _log.error("start_failed", exc_info=error)
        await _drain(process, settings.process.drain_deadline_s)
        return code
    calm_garbage_collection()
    readiness.phase = "running"
    _log.info("running", pid=os.getpid(), grpc=str(settings.grpc.address), ops=str(settings.ops.address))
    await process.stopping.wait()
    if settings.process.lame_duck_s and not process.failed:
        await process.lame_duck(settings.process.lame_duck_s)
    return await _drain(process, settings.process.drain_deadline_s)


async def _start(settings: S, start: Callable[[S, Process], Awaitable[None]], process: Process) -> bool:
    """Start the service's parts; False when a signal came first. Raises Refusal(start_failed) past the deadline."""
    starting = asyncio.ensure_future(_checked(settings, start, process))
    stopping = asyncio.create_task(process.stopping.wait())
    deadline_s = settings.process.start_deadline_s
    try:
        await asyncio.wait({starting, stopping}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if starting.cancelled():
            raise RuntimeError("the start was canceled, and nobody had asked for that")
        if starting.done():
            starting.result()
            return True
        if process.stopping.is_set():
            return False
        waits = said_of_start_waits()
        cause = f", because it waits for {waits}" if waits else ""
        message = f"not started within {deadline_s:g} s{cause}; raise OA_START_DEADLINE_S"
        raise Refusal("start_failed", message, field="OA_START_DEADLINE_S")
    finally:
        await cancel_and_wait(starting, stopping)


async def _checked(settings: S, start: Callable[[S, Process], Awaitable[None]], process: Process) -> None:
    if settings.production:
        await check_roles(settings)
    await start(settings, process)


async def _drain(process: Process, deadline_s: float) -> int:
    process.readiness.phase = "draining"
    process.stopping.set()
    _log.info("draining", deadline_s=deadline_s)
    began_s = time.monotonic()
    try:
        return await _close(process, deadline_s)
    finally:
        _end_within(deadline_s - (time.monotonic() - began_s), deadline_s)


def _end_within(left_s: float, deadline_s: float) -> None:
    """End the process when the rest of the deadline is over, whatever still keeps it: a thread that does not end, for
    example, or a collector of traces that does not answer."""

    def end() -> None:
        if left_s > 0:  # otherwise the drain was too slow, which is said
            _log.error("end_too_slow", deadline_s=deadline_s)
        os._exit(EXIT_BROKEN)

    timer = threading.Timer(max(left_s, _LATE_PART_S), end)
    timer.daemon = True
    timer.start()


async def _close(process: Process, deadline_s: float) -> int:
    closing = asyncio.ensure_future(process.close())
    await asyncio.wait({closing}, timeout=deadline_s)
    if not closing.done():
        _log.error("drain_too_slow", deadline_s=deadline_s)
        while not closing.done():
            closing.cancel()  # the part that is stopping; those that are left have a moment each
            await asyncio.wait({closing}, timeout=_LATE_PART_S)
        await asyncio.gather(closing, return_exceptions=True)
        return EXIT_BROKEN
    closing.result()
    _log.info("stopped")
    return EXIT_BROKEN if process.failed else EXIT_OK


def _report(service: str, refusal: Refusal) -> int:
    """Write the one line that says why the service did not start; returns the exit code."""
    line = str(refusal).replace("\n", " ")
    sys.stderr.write(f"{service}: {visible(line)}\n")
    return EXIT_REFUSED
