"""The signing key of a whole stack is rotated under load: two replicas of control, every service that takes tokens, and
no valid token is refused. A stolen key is another matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
import pytest

from apps.cli.tests.program import Done, Program
from oa_client.client import Client
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import Site
from oa_client.edge.api_keys import ApiKeyAccess
from oa_khala import frames
from oa_khala.topics import user_runs
from oa_localstack.installation.ports import HOST
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.plain_http import plain_http
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.devices import Device
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, World, signed_in

pytestmark = pytest.mark.long

CONTROL = {"OA_SIGNING_KEY_PUBLISHED_S": "15"}
VERIFIER = {"OA_JWKS_REFRESH_S": "1", "OA_JWKS_MIN_REFRESH_S": "1"}
ROUNDS = 3
PAUSE_S = 0.2
"""Between two rounds of a program: other tests work meanwhile."""
GET_CALLER = "/openagents.control.v1.SessionService/GetCaller"


@asynccontextmanager
async def two_controls(scratch: Path) -> AsyncIterator[tuple[StackUnderTest, Sequence[str]]]:
    """A stack with one more replica of control, and the URLs of both."""
    overrides = {"control": CONTROL, "runtime": VERIFIER, "projector": VERIFIER, "khala_gateway": VERIFIER}
    base = free_port(tuple(PORT_OFFSETS.values()))
    stack = StackUnderTest(scratch / "home", port_base=base, postgres_settings=FAST, overrides=overrides)
    await stack.start()
    try:
        http, grpc, ops = free_port(), free_port(), free_port()
        addresses = {"HTTP": http, "GRPC": grpc, "OPS": ops}
        settings = {f"OA_{kind}_ADDRESS": f"{HOST}:{port}" for kind, port in addresses.items()}
        settings["OA_DATABASE_MAY_LOSE_COMMITS"] = "true"
        async with stack.replica("control", CONTROL | settings):
            yield stack, (stack.urls["control"], f"http://{HOST}:{http}")
    finally:
        await stack.stop()


class Load:
    """Programs that use tokens everywhere: made a moment ago by either replica, and made long before by one.

    Whatever is refused ends the test.
    """

    def __init__(self, urls: Sequence[str], folder: Path, key: str, topic: str, old: str) -> None:
        self._urls = urls
        self._folder = folder
        self._key = key
        self._topic = topic
        self._old = old
        self.stopped = False
        self.rounds: dict[tuple[int, str], int] = {}
        """(program, key id that signed) -> rounds."""

    async def run(self, number: int) -> None:
        """Over and over: a new token of one replica, used at both of them, at runtime, projector and gateway."""
        own = self._urls[number % 2]
        async with plain_http(timeout_s=STEP_TIMEOUT_S) as http:
            while not self.stopped:
                async with Site(ClientHome(self._folder / str(number)), own, api_key=self._key).client() as client:
                    token = await self._everywhere(client)
                for used in (token, self._old):
                    for url in self._urls:
                        answer = await http.post(url + GET_CALLER, json={}, headers={"authorization": f"Bearer {used}"})
                        assert answer.status_code == 200, answer.text
                name = number, kid_of(token)
                self.rounds[name] = self.rounds.get(name, 0) + 1
                await asyncio.sleep(PAUSE_S)

    async def _everywhere(self, client: Client) -> str:
        commands = client.commands
        run = await commands.start_exec(["true"])
        assert (await commands.run(run.run_id)).run_id == run.run_id
        await commands.runs()
        device = Device(client, self._topic)
        socket = await device.socket(await device.grant())
        await socket.next(frames.Welcome)
        await socket.socket.close()
        return (await ApiKeyAccess(client.edge, lambda: self._key).current()).value

    async def until_signed_by(self, kid: str, programs: int) -> None:
        """Until each program has come round often enough with tokens of this key."""
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while any(self.rounds.get((number, kid), 0) < ROUNDS for number in range(programs)):
                await asyncio.sleep(0.05)


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def states(done: Done) -> list[str]:
    return [each["state"].removeprefix("SIGNING_KEY_STATE_") for each in done.documents]


async def test_no_valid_token_is_refused_while_the_signing_key_is_rotated(scratch: Path, tmp_path: Path) -> None:
    async with two_controls(scratch) as (stack, urls), signed_in(stack, tmp_path / "ann") as ann:
        oa = Program(tmp_path, {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"{HOST}:{stack.ports.control_grpc}"})
        old = (await ann.client.auth.current()).value
        load = await _load(ann, urls, tmp_path, old)
        programs = 2
        async with asyncio.TaskGroup() as tasks:
            for number in range(programs):
                tasks.create_task(load.run(number))
            await load.until_signed_by(kid_of(old), programs)
            # At once: for one that comes after the time of the first, nothing is in the way.
            rotate = ("admin", "keys", "rotate", "--json")
            made, again = sorted(await asyncio.gather(oa(*rotate), oa(*rotate)), key=lambda done: done.status)
            assert states(made) == ["SIGNING", "PUBLISHED"]
            following = made.documents[-1]["keyId"]
            assert again.error["reason"] == "already_exists"
            await load.until_signed_by(following, programs)
            load.stopped = True
        listed = await oa("admin", "keys", "list", "--json")
        assert states(listed) == ["VERIFYING", "SIGNING"]
        await _stolen(oa, ann, urls, following, old)


async def _load(ann: World, urls: Sequence[str], folder: Path, old: str) -> Load:
    commands = ann.client.commands
    topic = user_runs((await commands.caller()).subject)
    token = await commands.keys.create("load", scopes=["runs.read", "runs.write"], ttl_s=3600)
    return Load(urls, folder, token.api_key, topic, old)


async def _stolen(oa: Program, ann: World, urls: Sequence[str], stolen: str, old: str) -> None:
    """Nothing that was signed before is taken any more, on any replica; who is signed in stays so."""
    assert (await oa("admin", "keys", "rotate", "--stolen", "none", "--json")).error["reason"] == "not_found"
    rotated = await oa("admin", "keys", "rotate", "--stolen", stolen, "--json")
    assert states(rotated) == ["ENDED", "ENDED", "SIGNING"]
    now = rotated.documents[-1]
    async with plain_http(timeout_s=STEP_TIMEOUT_S) as http, asyncio.timeout(STEP_TIMEOUT_S):
        for url in urls:
            while (await _status(http, url, old)) != 401:
                await asyncio.sleep(0.05)
        await ann.client.commands.caller()
        fresh = (await ann.client.auth.current()).value
        assert kid_of(fresh) == now["keyId"]
        for url in urls:
            assert await _status(http, url, fresh) == 200


async def _status(http: httpx.AsyncClient, url: str, token: str) -> int:
    return (await http.post(url + GET_CALLER, json={}, headers={"authorization": f"Bearer {token}"})).status_code
