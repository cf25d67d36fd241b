"""A web backend that starts runs, and lets the browser that asked for a run watch it.

The API key stays in the backend. The browser gets a token that opens the events of its run for a few minutes, and
nothing else. When the token expires, the browser asks for the next one.

    export OA_CONTROL_URL=… OA_API_KEY=…
    uvicorn --app-dir examples browser_backend:app
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from openagents import Client, ExecSpec, Refusal, RunHandle


class State(TypedDict):
    client: Client


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    async with Client.from_env() as client:
        yield {"client": client}


def user_of(request: Request) -> str:
    """The user who asks. Use your own sign-in here; this example trusts a proxy that has signed the user in."""
    return request.headers.get("x-user", "")


def key_of(user: str, key: str) -> str:
    """The idempotency key of the run: another one for each user and each of the user's own keys, whatever they hold."""
    return hashlib.sha256(json.dumps([user, key]).encode()).hexdigest()


async def start(request: Request) -> JSONResponse:
    """POST {"text": …, "key": …}: start a run. The browser makes the key, so a second click starts no second run."""
    asked, user = await request.json(), user_of(request)
    if not user:
        raise HTTPException(401)
    client: Client = request.state.client
    command = ExecSpec(("echo", str(asked["text"])))
    run = await client.start("exec", command, key=key_of(user, str(asked["key"])), labels={"user": user})
    return JSONResponse(await _for_browser(run), status_code=201)


async def token(request: Request) -> JSONResponse:
    """POST: return the next token for one of the user's own runs. A label of the run says whose it is."""
    client: Client = request.state.client
    run = client.run(request.path_params["run_id"])
    labels = (await run.state()).document["spec"].get("labels", {})
    if labels.get("user", "") != user_of(request) or not user_of(request):
        raise HTTPException(404)
    return JSONResponse(await _for_browser(run))


async def _for_browser(run: RunHandle) -> dict[str, object]:
    grant = await run.sync_token(ttl_s=300)
    return {
        "run_id": run.run_id,
        "khala_url": grant.khala_url,
        "topics": sorted(grant.topics),
        "token": grant.token,
        "expires_in_ms": grant.expires_in_ms,
    }


async def refused(request: Request, problem: Exception) -> JSONResponse:
    """Answer with the reason of a refusal and its message, which is written for people."""
    assert isinstance(problem, Refusal)
    body = {"reason": problem.reason, "message": problem.message}
    return JSONResponse(body, status_code=problem.info.http_status)


app = Starlette(
    routes=[
        Route("/runs", start, methods=["POST"]),
        Route("/runs/{run_id}/token", token, methods=["POST"]),
    ],
    lifespan=lifespan,
    exception_handlers={Refusal: refused},
)
