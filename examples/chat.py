"""An agent that people talk to. Start it with OA_CONTROL_URL and OA_API_KEY, then, in another shell:

oa run start --detach --adapter chat --input '{"name": "Ann"}'
oa run send latest "What is the weather like?"
oa run send latest bye
oa run tail latest --from-start
"""

from __future__ import annotations

from dataclasses import dataclass

from openagents import Run, Worker


@dataclass
class Guest:
    """The person who wants to talk."""

    name: str


worker = Worker.from_env(slots=8)


async def answer_to(text: str) -> str:
    """Stands for a call of a model. It is made once for each message, whatever dies."""
    return f"You say: {text}"


@worker.agent("chat", input=Guest, output=int)
async def chat(run: Run[Guest]) -> int:
    """Answers every message until somebody says bye."""
    answered = 0
    async for text in run.inbox(str):
        if text == "bye":
            break
        answer = await run.step("answer", answer_to, text)
        async with run.assistant() as out:
            await out.write(answer)
        answered += 1
    return answered


if __name__ == "__main__":
    worker.run()
