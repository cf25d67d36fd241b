"""A worker whose agent does some of everything that agents do: OA_CONTROL_URL and OA_API_KEY in its environment."""

from __future__ import annotations

from datetime import timedelta

from openagents import Run, Worker
from tests.soak.tasks import AGENT, Done, Task

_DEADLINE = timedelta(minutes=1)


worker = Worker.from_env(slots=32)


@worker.agent(AGENT, input=Task, output=Done)
async def soak(run: Run[Task]) -> Done:
    """Says some words, and whatever else its task has."""
    task = run.input
    words = await run.step("words", _words, task.words)
    await run.random()
    async with run.assistant() as out:
        for word in words:
            await out.write(word)
    done = Done(len(words))
    if task.asks:
        done.approved = await run.approve("Go on?", deadline=_DEADLINE)
    if task.hears:
        done.heard = await run.receive(str)
    if task.has_child:
        child = await run.start_child(AGENT, Task(task.words))
        await child.result()
    await run.save({"words": len(words)})
    await run.sleep(timedelta(milliseconds=20))
    await run.usage("model-1", input=task.words, output=len(words))
    return done


def _words(count: int) -> list[str]:
    return [f"word {number} " for number in range(count)]


if __name__ == "__main__":
    worker.run()
