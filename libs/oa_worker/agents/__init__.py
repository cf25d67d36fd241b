"""Agents: functions with typed input and result, run by a worker.

    worker = Worker.from_env(slots=8)

    @worker.agent("support", input=Ask, output=Answer)
    async def support(run: Run[Ask]) -> Answer:
        async with run.assistant() as out:
            await out.write("Let me see …")
        return Answer(text=out.text)

    worker.run()                # until SIGTERM or Ctrl-C, which drain

Inputs and results may be dataclasses, pydantic models, TypedDicts and plain JSON types. docs/agents.md is the manual.

    worker     what you make, decorate with, and run
    run        one run, as its function sees it
    saying     what it says: text, tool calls, usage
    adapter    a function as an adapter: input in, result or failure out, cancel as CancelledError
    steps      what is done once for a run, whatever dies
    checkpoints  what it saves, for the worker that takes the run over
    progress   how far it is, for people
    requests   what it asks people
    children   runs that it starts
    inbox      what people say to a run
    testing    agents without a server
    replaying  today's agents against recorded runs: `recorded` reads them, `history` hands out what they have
    failures   what is said of an exception
    limits     every limit, with its default
"""

from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.children import Child, ChildFailed
from oa_worker.agents.primitives.saying import Assistant, ToolUse
from oa_worker.agents.run import Run
from oa_worker.agents.worker import Worker

__all__ = ["AgentLimits", "Assistant", "Child", "ChildFailed", "Run", "ToolUse", "Worker"]
