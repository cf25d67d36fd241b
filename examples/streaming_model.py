"""An agent that passes on a model's answer as it comes. The model's server speaks OpenAI's Responses API.

Start it with OA_CONTROL_URL, OA_API_KEY, OPENAI_API_KEY, OPENAI_MODEL and, for another server than OpenAI's,
OPENAI_BASE_URL; then

oa run start --adapter ask --retries 3 --input '{"text": "Why is the sky blue?"}'

Clients that follow the run see the answer grow. If the server is away or busy, or breaks off in the middle, the attempt
fails with a reason that says which of these it was, and the run is retried as often as it asks for (`--retries`). The
next attempt writes the answer from its beginning. A complete answer is a step: whatever dies then, nobody pays for it
twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import httpx

from openagents import Refusal, Run, Worker

BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
API_KEY = os.environ.get("OPENAI_API_KEY", "")
MODEL = os.environ["OPENAI_MODEL"]
CONNECT_S = 10.0
"""Maximum wait for a connection to the server."""
SILENCE_S = 120.0
"""Maximum wait for the next piece: a model may think for a while."""
MAX_EVENT_BYTES = 1024 * 1024
"""Maximum size of an event from the server. The last event contains the whole answer."""


@dataclass
class Question:
    """The question for the model."""

    text: str


@dataclass
class Answer:
    """The whole answer of the model."""

    text: str


class Usage(TypedDict):
    """Tokens that an answer used; `cached` of the input tokens came from a cache."""

    input: int
    output: int
    cached: int


worker = Worker.from_env(slots=8)


@worker.agent("ask", input=Question, output=Answer)
async def ask(run: Run[Question]) -> Answer:
    """Answers a question by asking a model."""

    async def answer() -> str:
        async with run.assistant() as out:
            usage = await stream(run.input.text, out.write)
        await run.usage(MODEL, **usage)
        return out.text

    return Answer(await run.step("answer", answer))


async def stream(question: str, write: Callable[[str], Awaitable[None]]) -> Usage:
    """Ask the model, and write each piece of its answer as it comes. A cancel closes the connection.

    Raises Refusal `unavailable`, `rate_limited` or `deadline_exceeded` if another try may help, and `invalid_value` if
    the server does not accept the request.
    """
    headers = {"authorization": f"Bearer {API_KEY}"} if API_KEY else {}
    body = {"model": MODEL, "input": question, "stream": True}
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    try:
        async with (
            httpx.AsyncClient(base_url=BASE_URL, headers=headers, timeout=timeout) as http,
            http.stream("POST", "responses", json=body) as response,
        ):
            check_status(response.status_code)
            return await pass_on(response, write)
    except httpx.TimeoutException:
        raise Refusal("deadline_exceeded", "the model's server is silent; try again") from None
    except httpx.TransportError as error:
        message = f"the model's server can't be reached, or broke off ({type(error).__name__}); try again"
        raise Refusal("unavailable", message) from None


def check_status(status: int) -> None:
    """Raise Refusal for a status other than 200."""
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise Refusal("rate_limited", "the model's server has too many requests; try again later")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise Refusal("unavailable", f"the model's server failed with status {status}; try again")
    if status != httpx.codes.OK:
        raise Refusal("invalid_value", f"the model's server answered with status {status}; look at model and key")


async def pass_on(response: httpx.Response, write: Callable[[str], Awaitable[None]]) -> Usage:
    """Write the pieces of an answer up to its end. Raises Refusal if the answer has no end."""
    rest = b""
    async for data in response.aiter_bytes():
        events, rest = whole_events(rest + data)
        for event in events:
            match event:
                case {"type": "response.output_text.delta", "delta": str(piece)}:
                    await write(piece)
                case {"type": "response.completed", "response": dict(whole)}:
                    return usage_of(whole)
                case {"type": "response.incomplete"}:
                    raise Refusal("invalid_value", "the model cut its answer short; ask for a shorter one")
                case {"type": "response.failed" | "error"}:
                    raise Refusal("unavailable", "the model's server failed in the middle of an answer; try again")
        if len(rest) > MAX_EVENT_BYTES:
            raise Refusal("payload_too_large", f"an event has more than {MAX_EVENT_BYTES} bytes; ask for less")
    raise Refusal("unavailable", "the model's server broke off in the middle of an answer; try again")


def usage_of(response: dict[str, Any]) -> Usage:
    """The tokens that a response used; zeros if its server does not count them."""
    used = response.get("usage") or {}
    cached = (used.get("input_tokens_details") or {}).get("cached_tokens", 0)
    return Usage(input=used.get("input_tokens", 0), output=used.get("output_tokens", 0), cached=cached)


def whole_events(data: bytes) -> tuple[list[Any], bytes]:
    """Return the server-sent events that are complete, and the bytes of the one that is not."""
    *blocks, rest = data.replace(b"\r\n", b"\n").split(b"\n\n")
    lines = [[line[5:] for line in block.split(b"\n") if line.startswith(b"data:")] for block in blocks]
    return [json.loads(b"\n".join(of_one)) for of_one in lines if of_one], rest


if __name__ == "__main__":
    worker.run()
