"""Agents: functions with typed input and result, run by a worker.

    worker = Worker.from_env(slots=8)

    @worker.agent("support", input=Ask, output=Answer)
    async def support(run: Run[Ask]) -> Answer:
        async with run.assistant() as out:
            await out.write("Let me see …")
        return Answer(text=out.text)

    worker.run()                # until SIGTERM, SIGHUP or Ctrl-C, which drain

Inputs and results may be dataclasses, pydantic models, TypedDicts and plain JSON types. docs/agents.md is the manual.

    worker      the worker that you create, decorate functions with, and run
    run         one run, as its function sees it
    primitives  what a function may do in its run: say, step, ask, receive, start children, save
    adapter     a function as an adapter: input in, result or failure out, cancel as CancelledError
    declared    the types that an agent's function declares for its input and output
    failures    what a run's log says about an exception
    signatures  the types in a function's annotations
    testing     agents without a server
    replays     today's agents against recorded runs
    limits      every limit, with its default
"""

from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.primitives.children import Child, ChildFailed
from oa_worker.agents.primitives.saying.saying import Assistant, ToolUse
from oa_worker.agents.run import Run
from oa_worker.agents.worker import Worker

__all__ = ["AgentLimits", "Assistant", "Child", "ChildFailed", "Run", "ToolUse", "Worker"]
