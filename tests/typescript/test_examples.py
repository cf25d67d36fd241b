"""The examples of the TypeScript client against a whole stack, in Node and in a headless Chromium."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from oa_client.core.models import Run
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S, Counting, World, signed_in
from tests.typescript.package import COMPILE_TIMEOUT_S, PACKAGE, compiled, following

pytestmark = [pytest.mark.long, pytest.mark.timeout(COMPILE_TIMEOUT_S + 2 * RUN_TIMEOUT_S)]


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """The package, compiled, as it is published and for its tests."""
    compiled("tsconfig.build.json")
    compiled()


@pytest_asyncio.fixture
async def world(scratch: Path, tmp_path: Path, origin: str) -> AsyncIterator[World]:
    """Somebody who is signed in at a stack that lets the page in."""
    pages = {"OA_ALLOWED_ORIGINS": origin}
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"control": pages, "khala_gateway": pages},
    )
    await stack.start()
    async with signed_in(stack, tmp_path / "client") as world:
        yield world
    await stack.stop()


def who(world: World, run: Run) -> dict[str, str]:
    """What an example has to be told."""
    auth = world.client.auth
    token = auth.credentials().access_token
    return {"control": world.stack.urls["control"], "token": token, "device": auth.device_id, "run": run.run_id}


async def test_a_script_of_fifteen_lines_prints_what_a_run_writes(world: World, tmp_path: Path) -> None:
    assert len((PACKAGE / "examples" / "follow.mjs").read_text("utf-8").splitlines()) <= 15
    counting = Counting(tmp_path / "gates", lines=40)
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(counting.command)
        told = {name.upper(): value for name, value in who(world, run).items()}
        process = await asyncio.create_subprocess_exec(
            "node", "examples/follow.mjs", cwd=PACKAGE, env={**os.environ, **told}, stdout=asyncio.subprocess.PIPE
        )
        counting.go_on()
        output, _ = await process.communicate()
    assert process.returncode == 0
    lines = output.splitlines(keepends=True)
    assert [line for line in lines if line.startswith(b"line")] == counting.stdout.splitlines(keepends=True)
    assert len(output) == len(counting.stdout) + len(counting.stderr)


async def test_a_page_of_thirty_lines_follows_a_run_over_lost_gateways_and_reloads(
    world: World, tmp_path: Path, origin: str
) -> None:
    assert len((PACKAGE / "examples" / "follow.html").read_text("utf-8").splitlines()) <= 30
    counting = Counting(tmp_path / "gates", lines=90, parts=3)
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(counting.command)
        options = {"page": f"{origin}/examples/follow.html", "fields": who(world, run)}
        async with following("chromium", options) as page:
            first = await page.until("open", otherwise="absent")
            if first["kind"] == "absent":
                pytest.skip(f"no Chromium can be started here: {first['message']}")
            await page.until("text")
            world.stack.kill("khala_gateway")
            counting.go_on()
            await world.stack.start_service("khala_gateway")
            text = await page.until("text")
            while "line 45" not in text["text"]:
                text = await page.until("text")
            page.tell("reload")
            await page.until("done", order="reload")
            counting.go_on()
            last = await page.until("text", finished=True)
            assert not [line for line in page.lines if line["kind"] == "defect"]
    lines = last["text"].splitlines(keepends=True)
    assert [line for line in lines if line.startswith("line")] == counting.stdout.decode().splitlines(keepends=True)
    assert len(last["text"]) == len(counting.stdout) + len(counting.stderr)


async def test_a_page_shows_a_character_that_comes_in_two_pieces(world: World, origin: str) -> None:
    async with world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        run = await world.client.commands.start_exec(["sh", "-c", r"printf 'caf\303'; sleep 1; printf '\251'"])
        options = {"page": f"{origin}/examples/follow.html", "fields": who(world, run)}
        async with following("chromium", options) as page:
            first = await page.until("open", otherwise="absent")
            if first["kind"] == "absent":
                pytest.skip(f"no Chromium can be started here: {first['message']}")
            assert (await page.until("text", finished=True))["text"] == "café"
