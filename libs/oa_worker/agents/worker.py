"""The worker that you create, decorate functions with, and run."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oa_base.environment import SiteAccess
from oa_base.refusal import Refusal
from oa_platform.process.signals import stop_signals
from oa_wire.given import check_between, check_function, check_text, check_text_arguments
from oa_wire.shapes import Shape
from oa_worker.agents.adapter import AgentAdapter, Handler
from oa_worker.agents.leaving import end_others
from oa_worker.agents.limits import DEFAULT_AGENT_LIMITS, MAX_AGENTS, MAX_SLOTS, SPARE_THREADS, AgentLimits
from oa_worker.agents.threads import Threads
from oa_worker.sdk.limits import DEFAULT_WORKER_LIMITS, WorkerLimits
from oa_worker.sdk.notices import Notice
from oa_worker.sdk.transport.tokens import ApiKeyTokens, TokenSource
from oa_worker.sdk.worker import Worker as Connection

if TYPE_CHECKING:
    from typing_extensions import TypeForm

In = TypeVar("In")
Out = TypeVar("Out")


class Worker:
    """Agents, and the process that runs them. `from_env` makes it from environment variables.

    `name`: the worker's name for people. `tokens`: where it gets its tokens, for example `oa_worker.ApiKeyTokens`.
    `slots`: how many runs are at work at a time; runs that only wait take no slot. `proxy`: the URL of an HTTP proxy
    for everything except loopback. `ca_file`: certificates of authorities (PEM) that are trusted besides the public
    ones. `notify` is called when the worker attaches or is cut off, and when a run begins or ends here.
    """

    def __init__(
        self,
        name: str,
        tokens: TokenSource,
        *,
        slots: int = 1,
        limits: WorkerLimits = DEFAULT_WORKER_LIMITS,
        agent_limits: AgentLimits = DEFAULT_AGENT_LIMITS,
        proxy: str = "",
        ca_file: Path | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
    ) -> None:
        check_text(name, "name")
        check_between(slots, "slots", 1, MAX_SLOTS)
        check_function(notify, "notify")
        self._name = name
        self._tokens = tokens
        self._slots = slots
        self._limits = limits
        self._agent_limits = agent_limits
        self._proxy = proxy
        self._ca_file = ca_file
        self._notify = notify
        self._agents: dict[str, AgentAdapter[Any, Any]] = {}
        self._drain: Callable[[], object] = _nothing
        self._draining = False
        self._serving = False

    @classmethod
    def from_env(
        cls,
        *,
        slots: int | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
        env: Mapping[str, str] = os.environ,
    ) -> Worker:
        """Create a worker from OA_CONTROL_URL and OA_API_KEY, and from OA_WORKER_NAME, OA_WORKER_SLOTS,
        OA_WORKER_DRAIN_S, OA_PROXY and OA_CA_FILE if they are set. The key may also be in a file that OA_API_KEY_FILE
        names, and the worker takes the next key from there when the key is rotated.

        `slots` takes precedence over OA_WORKER_SLOTS; without either it is 1. Raises Refusal `invalid_setting`, naming
        the variable.
        """
        site = SiteAccess.from_env(env)
        tokens = ApiKeyTokens(
            site.control_url,
            site.api_key,
            proxy=site.proxy,
            ca_file=site.ca_file,
            api_key_file=site.api_key_file,
        )
        name = env.get("OA_WORKER_NAME", "") or socket.gethostname() or "worker"
        drain_ms = _number(env, "OA_WORKER_DRAIN_S", 0, 99_999, DEFAULT_WORKER_LIMITS.drain_timeout_ms // 1000) * 1000
        return cls(
            name,
            tokens,
            slots=slots if slots is not None else _number(env, "OA_WORKER_SLOTS", 1, MAX_SLOTS, 1),
            limits=replace(DEFAULT_WORKER_LIMITS, drain_timeout_ms=drain_ms),
            proxy=site.proxy,
            ca_file=site.ca_file,
            notify=notify,
        )

    @property
    def agents(self) -> Mapping[str, AgentAdapter[Any, Any]]:
        """The worker's agents, by name."""
        return self._agents

    def agent(
        self, name: str, *, input: TypeForm[In], output: TypeForm[Out], description: str = ""
    ) -> Callable[[Handler[In, Out]], Handler[In, Out]]:
        """Decorate the function that is the agent `name`. The function stays unchanged, so that tests can call it.

        `description` is for people; by default it is the first paragraph of the function's docstring. Raises Refusal
        for a name that no adapter can have, for a type that can't be expressed in JSON, and for one agent more than 32.
        """
        check_text_arguments(name=name, description=description)
        if name in self._agents:
            raise ValueError(f"there is an agent {name!r} already; give each its own name")
        if len(self._agents) >= MAX_AGENTS:
            text = f"a worker has at most {MAX_AGENTS} agents; start another worker for this one"
            raise Refusal("invalid_value", text, field="name")
        shapes = Shape(input, "validation"), Shape(output, "serialization")

        def register(handler: Handler[In, Out]) -> Handler[In, Out]:
            check_function(handler, "handler")
            said = description or inspect.cleandoc(handler.__doc__ or "").partition("\n\n")[0]
            self._agents[name] = AgentAdapter(name, handler, shapes, said, self._agent_limits)
            return handler

        return register

    def run(self, *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        """Work until SIGINT (Ctrl-C), SIGTERM or SIGHUP; then take no new runs, finish the current ones, and return. A
        second signal, any of the three, ends the process at once with status 130. In a thread other than the main one,
        which gets the signals, work until `drain`. Afterwards, the worker can be run again.

        `loop_factory` makes the event loop, for example `uvloop.new_event_loop`; the default is asyncio's.

        Raises Refusal when it is pointless to continue (with a revoked key, for example).
        """
        if _within_a_loop():
            raise RuntimeError("an event loop runs here already; await worker.serve() in it")
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(self._run_until_signal())

    async def serve(self) -> None:
        """Do the same within a program of your own, until `drain`. Raises RuntimeError while the worker is at work."""
        if not self._agents:
            raise ValueError("the worker has no agent; decorate a function with worker.agent")
        if self._serving:
            raise RuntimeError("this worker is at work already; create another one")
        self._serving = True
        try:
            await self._serve()
        finally:
            self._drain, self._draining, self._serving = _nothing, False, False

    async def _serve(self) -> None:
        adapters = list(self._agents.values())
        connection = Connection(
            self._name,
            adapters,
            self._tokens,
            slots=self._slots,
            agents=[adapter.agent for adapter in adapters],
            limits=self._limits,
            proxy=self._proxy,
            ca_file=self._ca_file,
            notify=self._notify,
        )
        loop = asyncio.get_running_loop()
        self._drain = lambda: loop.call_soon_threadsafe(connection.drain)
        if self._draining:
            connection.drain()
        await connection.run()

    def drain(self) -> None:
        """Finish the current runs, take no new ones, then return from `run` or `serve`. Call it from any thread.

        Before `run` or `serve`, it ends the next one as soon as it begins.
        """
        self._draining = True
        with contextlib.suppress(RuntimeError):  # the worker's loop is closed: it has ended
            self._drain()

    async def _run_until_signal(self) -> None:
        # asyncio has few threads by default, and the worker resolves the addresses of its services in them.
        asyncio.get_running_loop().set_default_executor(Threads(self._slots + SPARE_THREADS, "asyncio"))
        # Only the main thread gets signals.
        is_main = threading.current_thread() is threading.main_thread()
        with stop_signals(lambda number: self.drain()) if is_main else contextlib.nullcontext():
            try:
                await self.serve()
            finally:
                await end_others(self._agent_limits.stop_timeout_ms)


def _nothing() -> None:
    pass


def _within_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _number(env: Mapping[str, str], variable: str, minimum: int, maximum: int, default: int) -> int:
    given = env.get(variable, "")
    if not given:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", given) or not minimum <= int(given) <= maximum:
        text = f"{variable} is no whole number from {minimum} to {maximum}; set one"
        raise Refusal("invalid_setting", text, field=variable)
    return int(given)
