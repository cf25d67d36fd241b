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
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from openagents import Client, ExecSpec, Refusal, RunHandle


class State(TypedDict):
    client: Client


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    async with Client.from_env() as client:
        yield {"client": client}


app = FastAPI(lifespan=lifespan)


def signed_in(x_user: Annotated[str, Header()] = "") -> str:
    """The user who asks. Use your own sign-in here; this example trusts a proxy that has signed the user in."""
    if not x_user:
        raise HTTPException(401)
    return x_user


def client_of(request: Request) -> Client:
    client: Client = request.state.client
    return client


User = Annotated[str, Depends(signed_in)]
Runs = Annotated[Client, Depends(client_of)]


class Asked(BaseModel):
    """The browser makes the key, so a second click starts no second run."""

    text: str
    key: str


class ForBrowser(BaseModel):
    """What a browser needs to watch its run."""

    run_id: str
    khala_url: str
    topics: list[str]
    token: str
    expires_in_ms: int


@app.post("/runs", status_code=201)
async def start(asked: Asked, user: User, client: Runs) -> ForBrowser:
    """Start a run."""
    command = ExecSpec(("echo", asked.text))
    run = await client.start("exec", command, key=key_of(user, asked.key), labels={"user": user})
    return await _for_browser(run)


@app.post("/runs/{run_id}/token")
async def token(run_id: str, user: User, client: Runs) -> ForBrowser:
    """Return the next token for one of the user's own runs. A label of the run says whose it is."""
    run = client.run(run_id)
    labels = (await run.state()).document["spec"].get("labels", {})
    if labels.get("user") != user:
        raise HTTPException(404)
    return await _for_browser(run)


@app.exception_handler(Refusal)
async def refused(request: Request, refusal: Refusal) -> JSONResponse:
    """Answer with the reason of a refusal and its message, which is written for people."""
    body = {"reason": refusal.reason, "message": refusal.message}
    return JSONResponse(body, status_code=refusal.info.http_status)


def key_of(user: str, key: str) -> str:
    """The idempotency key of the run: another one for each user and each of the user's own keys, whatever they hold."""
    return hashlib.sha256(json.dumps([user, key]).encode()).hexdigest()


async def _for_browser(run: RunHandle) -> ForBrowser:
    grant = await run.sync_token(ttl_s=300)
    return ForBrowser(
        run_id=run.run_id,
        khala_url=grant.khala_url,
        topics=sorted(grant.topics),
        token=grant.token,
        expires_in_ms=grant.expires_in_ms,
    )
