"""One org, or one worker that says nothing, does not take the streams of all others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.runtime.tests.rig import PATIENT_WORKERS, FakeWorker, refusing, replica, runtime_settings, somebody


async def test_a_stream_that_does_not_introduce_its_worker_ends(runtime_database: Database) -> None:
    who, workers = somebody(), replace(PATIENT_WORKERS, hello_ms=50)
    async with replica(runtime_settings(runtime_database, workers=workers), who.key) as runtime:
        silent = FakeWorker(runtime, who)
        while True:  # on a slow machine, an honest one may be late, too
            honest = FakeWorker(runtime, who)
            with suppress(Refusal):
                await honest.attach()
                break
        with pytest.raises(Refusal) as caught:
            await refusing(silent.call.read())
        assert (caught.value.reason, caught.value.field) == ("hello_timeout", "attach")
        await honest.heartbeat()
        assert not honest.call.done()


async def test_an_org_has_a_limited_number_of_streams(runtime_database: Database) -> None:
    who, workers = somebody(), replace(PATIENT_WORKERS, hello_ms=int(PATIENCE_S * 1000), max_streams_of_org=2)
    other = replace(somebody(), key=who.key)
    async with replica(runtime_settings(runtime_database, workers=workers), who.key) as runtime:
        first, silent = FakeWorker(runtime, who), FakeWorker(runtime, who)
        await first.attach()
        await silent.call.wait_for_connection()
        with pytest.raises(Refusal) as caught:
            await FakeWorker(runtime, who).attach()
        assert caught.value.reason == "overloaded"
        await FakeWorker(runtime, other).attach()
        silent.call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(Refusal):
                    await FakeWorker(runtime, who).attach()
                    break
