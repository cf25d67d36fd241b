"""The worker SDK: take runs from the authority, execute them with an adapter, and append what happens to their logs.

    worker = Worker(name="laptop", adapters=[ExecAdapter()], tokens=ApiKeyTokens(control_url, api_key))
    await worker.run()          # until worker.drain()

An event that `emit` has taken is appended once and in order, whatever happens to the connection. If that is impossible,
because the run is no longer this worker's, the adapter is told so.

    sdk          the process: attach, heartbeats, assignments, drain, reconnect; what executes a run (`Adapter`); limits
      transport  the way to the authority: proxies, trust, tokens, the stream, and the calls beside it
      runs       the runs that the worker holds: their slots, their execution, and their appends
    adapters     built-in adapters: `exec` runs a command below a warden of its own, `codex` takes a turn of Codex
    agents       functions with typed input and result
      primitives things that such a function may do in its run
      replays    recorded runs, and today's code against them
"""

from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.sdk.adapter import Adapter, Assignment, CancelSignal, Emit
from oa_worker.sdk.limits import ExecLimits, WorkerLimits
from oa_worker.sdk.transport.tokens import ApiKeyTokens, TokenSource, WorkerToken
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
