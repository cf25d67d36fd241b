"""OpenAgents Runtime for Python programs: the only package that its users import.

    from openagents import Client, ExecSpec         # start runs, follow them, take their results
    from openagents import Run, Worker              # write agents that do them

The generated contracts are below it (`openagents.runtime.v1`, …). In a checkout they are in another folder, `gen`; a
wheel has both in one. The names of the package are loaded on first use, because every service imports the contracts.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oa_base.refusal import Refusal
    from oa_client.core.models import AskedRequest, Caller, Finish, SyncGrant
    from oa_client.core.models import Run as RunState
    from oa_client.core.schedules import Cron, Every, Schedule, ScheduleDetails
    from oa_client.sdk.client import Client
    from oa_client.sdk.queue import Queue, Retry
    from oa_client.sdk.runs import RunCanceled, RunEnded, RunFailed, RunHandle
    from oa_client.sdk.schedules import ScheduleHandle
    from oa_client.sdk.topics import TopicUpdate, UpdateKind
    from oa_runlog import events
    from oa_runlog.events import Concurrency, ExecSpec, PromptSpec, RunEvent, Terminal
    from oa_worker.agents import Child, ChildFailed, Run, Worker

__path__ = extend_path(__path__, __name__)

DISTRIBUTION = "openagents-runtime"
"""The name of this distribution. Another one has a package of the same name, so `oa` checks whose package it is."""

__all__ = [
    "AskedRequest",
    "Caller",
    "Child",
    "ChildFailed",
    "Client",
    "Concurrency",
    "Cron",
    "Every",
    "ExecSpec",
    "Finish",
    "PromptSpec",
    "Queue",
    "Refusal",
    "Retry",
    "Run",
    "RunCanceled",
    "RunEnded",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "RunState",
    "Schedule",
    "ScheduleDetails",
    "ScheduleHandle",
    "SyncGrant",
    "Terminal",
    "TopicUpdate",
    "UpdateKind",
    "Worker",
    "events",
]

HOMES = {
    "AskedRequest": "oa_client.core.models:AskedRequest",
    "Caller": "oa_client.core.models:Caller",
    "Child": "oa_worker.agents:Child",
    "ChildFailed": "oa_worker.agents:ChildFailed",
    "Client": "oa_client.sdk.client:Client",
    "Concurrency": "oa_runlog.events:Concurrency",
    "Cron": "oa_client.core.schedules:Cron",
    "Every": "oa_client.core.schedules:Every",
    "ExecSpec": "oa_runlog.events:ExecSpec",
    "Finish": "oa_client.core.models:Finish",
    "PromptSpec": "oa_runlog.events:PromptSpec",
    "Queue": "oa_client.sdk.queue:Queue",
    "Refusal": "oa_base.refusal:Refusal",
    "Retry": "oa_client.sdk.queue:Retry",
    "Run": "oa_worker.agents:Run",
    "RunCanceled": "oa_client.sdk.runs:RunCanceled",
    "RunEnded": "oa_client.sdk.runs:RunEnded",
    "RunEvent": "oa_runlog.events:RunEvent",
    "RunFailed": "oa_client.sdk.runs:RunFailed",
    "RunHandle": "oa_client.sdk.runs:RunHandle",
    "RunState": "oa_client.core.models:Run",
    "Schedule": "oa_client.core.schedules:Schedule",
    "ScheduleDetails": "oa_client.core.schedules:ScheduleDetails",
    "ScheduleHandle": "oa_client.sdk.schedules:ScheduleHandle",
    "SyncGrant": "oa_client.core.models:SyncGrant",
    "Terminal": "oa_runlog.events:Terminal",
    "TopicUpdate": "oa_client.sdk.topics:TopicUpdate",
    "UpdateKind": "oa_client.sdk.topics:UpdateKind",
    "Worker": "oa_worker.agents:Worker",
    "events": "oa_runlog.events",
}
"""Name -> the module, or module:name, from which it is loaded."""


if not TYPE_CHECKING:  # for a type checker, a module with this function has every name

    def __getattr__(name: str) -> object:
        home = HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = home.partition(":")
        try:
            value = getattr(import_module(module), attribute) if attribute else import_module(module)
        except ModuleNotFoundError as missing:
            message = f"openagents.{name} needs the module {missing.name}; install '{DISTRIBUTION}[sdk]'"
            raise ImportError(message, name=missing.name) from missing
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
