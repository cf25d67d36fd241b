"""Finished runs for tests of what comes after the finish."""

from __future__ import annotations

from typing import Any

from services.runtime.tests.rig import Doors, FakeWorker, Somebody, finish, text


async def finished_runs(runtime: Doors, who: Somebody, *outputs: bytes, retention_class: str = "") -> list[str]:
    """A run for each output, all of them done by one worker; their ids."""
    worker = FakeWorker(runtime, who, slots=1)
    await worker.attach()
    run_ids = [await _done(runtime, worker, who, output, retention_class) for output in outputs]
    await worker.leave()
    return run_ids


async def _done(runtime: Doors, worker: FakeWorker, who: Somebody, output: bytes, retention_class: str) -> str:
    run = await runtime.create(who, f"k-{output[:40].hex()}", retention_class=retention_class)
    assigned: Any = (await worker.next("assignment")).assignment
    assert assigned.run.run_id == run.run_id
    await worker.append(run.run_id, assigned.lease_epoch, "work", text(output), text(output[::-1]))
    await worker.append(run.run_id, assigned.lease_epoch, "end", finish())
    return str(run.run_id)
