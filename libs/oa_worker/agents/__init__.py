"""Agents: functions with typed input and result, run by a worker.

    worker = Worker.from_env(slots=8)

    @worker.agent("support", input=Ask, output=Answer)
    async def support(run: Run[Ask]) -> Answer:
        async with run.assistant() as out:
            await out.write("Let me see …")
        return Answer(text=out.text)

    worker.run()                # until SIGTERM, SIGHUP or Ctrl-C, which drain

Inputs and results may be dataclasses, pydantic models, TypedDicts and plain JSON types. docs/agents.md is the manual.

    worker     the worker that you create, decorate functions with, and run
    run        one run, as its function sees it
    saying     what a run says: text, tool calls, usage
    adapter    a function as an adapter: input in, result or failure out, cancel as CancelledError
    steps      actions that are performed once for a run, no matter which process dies
    within     what a step may not do: ask its run for something
    ending     a run whose cancel was requested
    checkpoints  what a run saves for the worker that takes it over
    progress   how far a run has come, for people
    requests   questions that a run asks people
    children   runs that a run starts
    inbox      what people say to a run
    testing    agents without a server
    replaying  today's agents against recorded runs: `recorded` reads them, `history` hands out their contents
    failures   what a run's log says about an exception
    limits     every limit, with its default
"""

from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.children import Child, ChildFailed
from oa_worker.agents.primitives.saying import Assistant, ToolUse
from oa_worker.agents.run import Run
from oa_worker.agents.worker import Worker

__all__ = ["AgentLimits", "Assistant", "Child", "ChildFailed", "Run", "ToolUse", "Worker"]
