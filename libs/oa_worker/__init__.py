"""The worker SDK: take runs from the authority, execute them with an adapter, and append what happens to their logs.

    worker = Worker(name="laptop", adapters=[ExecAdapter()], tokens=ApiKeyTokens(control_url, api_key))
    await worker.run()          # until worker.drain()

What it guarantees: an event that `emit` took is appended once, in order, whatever happens to the connection; or the
run is no longer this worker's, and the adapter is told so.

    adapter      what executes a run: the Protocol that you implement
    exec         the built-in adapter: runs a command
    codex        the built-in adapter: takes a turn of Codex
    process      a command below a warden of its own
    warden       the warden's program: ends whatever the command started
    outputs      the command's output, read as fast as it is taken
    worker       the process: attach, heartbeats, assignments, drain, reconnect
    execution    one run on this worker
    appender     one run's appends: coalesced, paced, one in flight, answered exactly once
    buffer       events that wait for their append (pure)
    connection   one Attach stream
    tokens       API key -> worker token
    way          straight, or through a proxy that was set
    limits       every limit, with its default
"""

from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.sdk.adapter import Adapter, Assignment, CancelSignal, Emit
from oa_worker.sdk.limits import ExecLimits, WorkerLimits
from oa_worker.sdk.tokens import ApiKeyTokens, TokenSource, WorkerToken
from oa_worker.sdk.worker import Worker

__all__ = [
    "Adapter",
    "ApiKeyTokens",
    "Assignment",
    "CancelSignal",
    "Emit",
    "ExecAdapter",
    "ExecLimits",
    "TokenSource",
    "Worker",
    "WorkerLimits",
    "WorkerToken",
]
