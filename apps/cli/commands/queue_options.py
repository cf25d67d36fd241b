"""Options that say when a worker gets a run, how long it may take, and whether it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

import click

from apps.cli.times import DURATION, MOMENT
from oa_client.sdk.queue import Queue, Retry, policy_of
from oa_runlog.events import Concurrency

_NONE = timedelta()


def queue_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets a QueuePolicy as `queue`."""

    @click.option("--priority", type=click.IntRange(-100, 100), default=0, help="A higher one goes first; 0 is usual.")
    @click.option("--not-before", type=MOMENT, metavar="TIME|+DURATION", help="No worker gets it before.")
    @click.option("--start-timeout", type=DURATION, default=_NONE, help="It fails if no worker starts it for so long.")
    @click.option("--run-timeout", type=DURATION, default=_NONE, help="It fails if it goes on for so long.")
    @click.option(
        "--concurrency", type=_Concurrent(), metavar="KEY=N", help="At most N runs with this key run at a time."
    )
    @click.option("--retries", type=click.IntRange(0, 99), default=0, help="How often it is tried again if it fails.")
    @click.option("--retry-delay", type=DURATION, default="1s", show_default=True, help="Pause before; then doubled.")
    @wraps(run)
    def with_queue(
        *args: Any,
        priority: int,
        not_before: datetime | None,
        start_timeout: timedelta,
        run_timeout: timedelta,
        concurrency: Concurrency | None,
        retries: int,
        retry_delay: timedelta,
        **others: Any,
    ) -> Any:
        queue = Queue(
            priority=priority,
            not_before=not_before,
            start_timeout=start_timeout,
            run_timeout=run_timeout,
            concurrency=concurrency,
            retry=Retry(failures=retries + 1, delay=retry_delay) if retries else None,
        )
        return run(*args, queue=policy_of(queue), **others)

    return with_queue


class _Concurrent(click.ParamType[Concurrency]):
    """ "deploy=1"."""

    name = "concurrency"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Concurrency:
        """The key and its limit; a usage error for anything else."""
        if isinstance(value, Concurrency):
            return value
        key, _, limit = str(value).rpartition("=")
        if not key or not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:6]) <= 10_000):
            self.fail("Give a key and a number from 1 to 10000, as deploy=1.", param, ctx)
        return Concurrency(key, int(limit))
