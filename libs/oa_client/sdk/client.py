"""A client of one site for programs, signed in with an API key.

async with Client.from_env() as client:
    run = await client.start("exec", ExecSpec(("make", "test")), key="build-17")
    finish = await run.result()
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from oa_base.at_work import RUN_AT_WORK
from oa_base.environment import ApiKey, SiteAccess, check_khala_url, check_proxy
from oa_base.refusal import Refusal
from oa_base.version import VERSION
from oa_client.core.models import Caller
from oa_client.core.schedules import Cron, Every, Schedule
from oa_client.core.store import MAX_BATCH, WatermarkStore
from oa_client.cpython.files import site_name
from oa_client.cpython.network import HttpxHttp, WebSockets
from oa_client.edge.api_keys import ApiKeyAccess
from oa_client.edge.calls import Edge
from oa_client.edge.commands import Commands
from oa_client.edge.new_ids import new_device_id
from oa_client.follow.subscription import Subscription
from oa_client.sdk.queue import Queue, policy_of, thread_policy, whole_ms
from oa_client.sdk.runs import SURFACE, RunHandle
from oa_client.sdk.schedules import ScheduleHandle
from oa_client.sdk.topics import TopicUpdate, topic_updates
from oa_client.transport import Sockets
from oa_runlog.events import AgentSpec, ExecSpec, PromptSpec, RunSpec, Terminal
from oa_wire.given import (
    MAX_SMALL_COUNT,
    check_count,
    check_duration,
    check_flag,
    check_kind,
    check_moment,
    check_named_texts,
    check_text,
    check_text_arguments,
    check_texts,
)
from oa_wire.shapes import json_text

_log = logging.getLogger("oa_client.sdk")
_BUILD_ID = f"oa-{SURFACE}/{VERSION}"


class Client:
    """Starts runs and follows them. Use it in `async with`, or close it.

    One client serves any number of tasks of one event loop. When the loop has been closed, another one may use the
    client, as with `asyncio.run` twice, and so may a forked process; it opens connections of its own. In another loop
    while the first one is open, and after `close`, calls raise RuntimeError.

    Every method may raise Refusal: `unavailable` and similar reasons after a few attempts, `invalid_api_key`, or the
    reason why the service refuses the request.
    """

    def __init__(
        self,
        control_url: str,
        api_key: str,
        *,
        khala_url: str = "",
        proxy: str = "",
        ca_file: Path | None = None,
        compress: bool = False,
        api_key_file: Path | None = None,
    ) -> None:
        """`control_url`: the public edge, https:// for TLS. `khala_url` overrides the address that control gives.

        `proxy`: the URL of an HTTP proxy for everything except loopback. `ca_file`: certificates of authorities (PEM)
        that are trusted besides the public ones. `compress` offers gateways to compress their messages, for slow
        networks. `api_key_file`: a file that has the key, too, and will have the next one when the key is rotated; the
        client reads it whenever it exchanges the key.

        Raises Refusal `invalid_setting`, which names the variable that `from_env` reads, and `invalid_value` for an
        argument of another type.
        """
        check_text_arguments(control_url=control_url, api_key=api_key, khala_url=khala_url, proxy=proxy)
        check_flag(compress, "compress")
        site_name(control_url)  # refuses anything that is not a URL
        check_khala_url(khala_url)
        check_proxy(proxy)
        self._http = HttpxHttp(proxy, ca_file)
        edge = Edge(control_url, self._http, _BUILD_ID)
        self._commands = Commands(edge, ApiKeyAccess(edge, ApiKey(api_key, api_key_file).current))
        self._warned = False
        self._following = _Following(self._commands, WebSockets(proxy, ca_file, compress=compress), khala_url)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Return a client from OA_CONTROL_URL and OA_API_KEY, and optionally OA_KHALA_URL, OA_PROXY and OA_CA_FILE.

        The key may also be in the file that OA_API_KEY_FILE names, and the client takes the next key from there when
        the key is rotated. Raises Refusal(invalid_setting).
        """
        site = SiteAccess.from_env(env)
        khala_url = env.get("OA_KHALA_URL", "")
        return cls(
            site.control_url,
            site.api_key,
            khala_url=khala_url,
            proxy=site.proxy,
            ca_file=site.ca_file,
            api_key_file=site.api_key_file,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. The client can't be used any more."""
        await self._http.close()

    async def start(
        self,
        adapter: str,
        input: object,
        *,
        key: str = "",
        title: str = "",
        labels: Mapping[str, str] | None = None,
        thread_id: str = "",
        retention_class: str = "",
        queue: Queue | None = None,
        if_busy: str = "",
    ) -> RunHandle:
        """Start a run for the workers that have `adapter`. The run waits until one of them takes it.

        `input`: an ExecSpec or PromptSpec for adapters that take these; anything else is the input of an agent, and is
        sent as JSON: a dataclass, a pydantic model, or plain JSON values. Raises Refusal `invalid_value` for an input
        that has no form in JSON, and for one that no attached worker takes, with its `path` in the metadata.

        `key` makes it safe to call this again after a crash: the same key and the same input give the same run, and
        the same key with another input is refused as `idempotency_conflict`. Without a key, every call starts a run.

        Even in an agent, this starts an independent run of the client's API key: it is not a child of the agent's run,
        is not canceled with it, and may be started again after a takeover. The first time a client does so, it logs a
        warning. `run.start_child` starts children.

        `queue`: when a worker gets the run, how long it may take, and whether it is tried again.

        `thread_id`: runs with the same id are one conversation. `if_busy` says what happens while an older one has not
        ended: "reject" (Refusal `thread_busy`), "enqueue" (the new run waits), "interrupt" (the older one is canceled).
        Without it they run side by side.
        """
        check_text(key, "key")
        spec = _spec(adapter, input, title, thread_id, labels, retention_class, queue, if_busy)
        run = await self._commands.create_run(spec, key)
        self._warn_if_within_a_run(run.run_id)
        return self.run(run.run_id)

    def _warn_if_within_a_run(self, started: str) -> None:
        if (parent := RUN_AT_WORK.get()) and not self._warned:
            self._warned = True
            _log.warning(
                "%s was started by the agent of %s and is not its child: it is not canceled with it; "
                "run.start_child starts children",
                started,
                parent,
                extra={"run_id": parent, "started_run_id": started},
            )

    def run(self, run_id: str) -> RunHandle:
        """Return the run with this id, without asking the service yet."""
        check_text(run_id, "run_id")
        return RunHandle(run_id, self._commands, self._following)

    async def caller(self) -> Caller:
        """Return the principal of the API key, and its org."""
        return await self._commands.caller()

    async def topic(self, name: str, cursor: str = "", *, snapshots: bool = False) -> AsyncGenerator[TopicUpdate, None]:
        """Yield updates of a topic, in order and each once: `async for update in client.topic("org:org_…:runs"): …`.

        It continues after `cursor`, the cursor of an update, or else begins with a snapshot of a list, or with the
        first event. A broken connection is reopened and continues with exactly the next element. `snapshots`: a run
        begins with a snapshot as well. `docs/protocol/topics.md` lists the topics. Raises Refusal if the topic
        can't be followed.
        """
        async with aclosing(self.topics({name: cursor}, snapshots=snapshots)) as updates:
            async for update in updates:
                if update.refusal is not None:
                    raise update.refusal
                yield update

    async def topics(self, cursors: Mapping[str, str], *, snapshots: bool = False) -> AsyncGenerator[TopicUpdate, None]:
        """Yield updates of several topics over one connection. `cursors`: name -> cursor to continue after, or "".

        A topic that can't be followed is reported (`refused`), and the others continue. It ends when none is left.
        """
        check_named_texts(cursors, "cursors")
        check_flag(snapshots, "snapshots")
        async with aclosing(topic_updates(self._following, cursors, snapshots=snapshots)) as updates:
            async for update in updates:
                yield update

    async def create_schedule(
        self,
        name: str,
        timing: Cron | Every,
        adapter: str,
        input: object,
        *,
        overlap: str = "skip",
        catch_up: timedelta = timedelta(0),
        key: str = "",
        title: str = "",
        labels: Mapping[str, str] | None = None,
        thread_id: str = "",
        retention_class: str = "",
        queue: Queue | None = None,
        if_busy: str = "",
    ) -> ScheduleHandle:
        """Start a run of `adapter` with `input`, as `start` does, at each time of `timing`.

        `overlap` says what happens if the last run has not ended: skip, allow or cancel_previous. `catch_up`: how
        late a run may start; 0 for the installation's default. `key` is as in `start`.

        Raises Refusal `already_exists` for a name that another schedule of the org has, `limit_reached`, and for an
        input as `start` does.
        """
        check_text_arguments(name=name, overlap=overlap, key=key)
        catch_up_ms = whole_ms(catch_up, "catch_up")
        _check_timing(timing)
        spec = _spec(adapter, input, title or name, thread_id, labels, retention_class, queue, if_busy)
        await self._commands.schedules.create(
            name, timing, spec, overlap=overlap, catch_up_ms=catch_up_ms, idempotency_key=key
        )
        return self.schedule(name)

    def schedule(self, name: str) -> ScheduleHandle:
        """Return the schedule with this name or id, without asking the service yet."""
        check_text(name, "name")
        return ScheduleHandle(name, self._commands, self._following)

    async def schedules(self) -> AsyncGenerator[Schedule, None]:
        """Yield all schedules of the org, newest first."""
        token = ""
        while True:
            page = await self._commands.schedules.page(page_token=token)
            for one in page.schedules:
                yield one
            token = page.next_page_token
            if not token:
                return


class _Following:
    """Makes subscriptions; implements `oa_client.follow.run_tail.Subscribes`."""

    def __init__(self, commands: Commands, sockets: Sockets, khala_url: str) -> None:
        self._commands = commands
        self._sockets = sockets
        self._khala_url = khala_url
        self._device_id = new_device_id()

    def subscription(self, store: WatermarkStore, *, max_batch: int = MAX_BATCH) -> Subscription:
        return Subscription(
            self._device_id,
            _BUILD_ID,
            self._commands,
            self._sockets,
            store,
            surface=SURFACE,
            khala_url=self._khala_url,
            max_batch=max_batch,
        )


def _spec(
    adapter: str,
    input: object,
    title: str,
    thread_id: str,
    labels: Mapping[str, str] | None,
    retention_class: str,
    queue: Queue | None,
    if_busy: str,
) -> RunSpec:
    check_text_arguments(adapter=adapter, title=title, thread_id=thread_id, retention_class=retention_class)
    check_named_texts({} if labels is None else labels, "labels")
    given = _input(input)
    spec = RunSpec(adapter, given, title, thread_id, labels or {}, retention_class)
    if queue is not None:
        spec = replace(spec, queue=policy_of(queue))
    return replace(spec, thread_policy=thread_policy(if_busy)) if if_busy else spec


def _check_timing(timing: object) -> None:
    match timing:
        case Cron():
            check_text(timing.expression, "timing.expression")
            check_text(timing.time_zone, "timing.time_zone")
        case Every():
            check_duration(timing.distance, "timing.distance")
            if timing.anchor is not None:
                check_moment(timing.anchor, "timing.anchor")
        case _:
            raise Refusal("invalid_value", "timing must be a Cron or an Every; give one of them", field="timing")


def _input(given: object) -> ExecSpec | PromptSpec | AgentSpec:
    match given:
        case ExecSpec():
            check_texts(given.argv, "input.argv")
            check_named_texts(given.environment, "input.environment")
            check_text(given.working_directory, "input.working_directory")
            check_count(given.timeout_ms, "input.timeout_ms")
            check_flag(given.stdin, "input.stdin")
            if given.terminal is not None:
                check_kind(given.terminal, Terminal, "input.terminal")
                check_count(given.terminal.columns, "input.terminal.columns", MAX_SMALL_COUNT)
                check_count(given.terminal.rows, "input.terminal.rows", MAX_SMALL_COUNT)
            return given
        case PromptSpec():
            check_text(given.text, "input.text")
            return given
        case _:
            return AgentSpec(json_text(given, "input"))
