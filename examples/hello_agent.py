"""An agent that greets somebody. Start it with OA_CONTROL_URL and OA_API_KEY, then, in another shell:

oa run start --adapter hello --input '{"name": "Ann"}'
"""

from __future__ import annotations

from dataclasses import dataclass

from openagents import Run, Worker


@dataclass
class Ask:
    """The person to greet, and how many times."""

    name: str
    times: int = 1


@dataclass
class Answer:
    """The greeting."""

    text: str


worker = Worker.from_env(slots=8)


@worker.agent("hello", input=Ask, output=Answer)
async def hello(run: Run[Ask]) -> Answer:
    """Greets somebody."""
    async with run.assistant() as out:
        for _ in range(run.input.times):
            await out.write(f"Hello, {run.input.name}! ")
    await run.usage("no-model", input=len(run.input.name), output=len(out.text))
    return Answer(text=out.text.strip())


if __name__ == "__main__":
    worker.run()
