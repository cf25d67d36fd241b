"""An agent on a real stack: the example as it is shipped, started by hand, asked by hand, and its result in the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_testing.processes import killed_at_end
from oa_testing.stack import StackUnderTest
from tests.e2e.world import World, signed_in
from tests.house.files import REPO

EXAMPLE = REPO / "examples" / "hello_agent.py"


@asynccontextmanager
async def example(world: World) -> AsyncIterator[asyncio.subprocess.Process]:
    """The example as a process, to be drained by SIGTERM."""
    key = (await world.client.commands.create_service_account("agents")).api_key
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, **world.stack.env, "OA_API_KEY": key, "PYTHONPATH": path}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), env=env, stderr=asyncio.subprocess.PIPE
    )
    async with killed_at_end(process):
        yield process


async def test_the_example_answers_what_a_person_asks(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "client", "ann@example.org") as world:
        program = Program.of_a_person(tmp_path, stack)
        assert (await program("login", "--dev", "--email", "ann@example.org")).status == Exit.OK
        async with example(world) as process:
            ask = ("run", "start", "--adapter", "hello", "--input")
            followed = await program(*ask, '{"name": "Ann\\u001b[2J", "times": 2}')
            assert followed.status == Exit.OK, followed.stderr
            await _shown(program, followed.stderr.split()[0])
            refused = await program(*ask, '{"name": "secret", "times": "secret"}', "--json")
            assert (refused.status, refused.error["field"]) == (Exit.REFUSED, "spec.agent.input_json")
            assert refused.error["metadata"] == {"path": "$.times"}
            assert "secret" not in refused.stderr
            (tmp_path / "input.json").write_text('{"name": "Bob"}')
            from_file = await program(*ask, f"@{tmp_path / 'input.json'}")
            assert from_file.status == Exit.OK, from_file.stderr
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(TIMEOUT_S):
                assert await process.wait() == 0
        to_hello = ask[2:]
        assert (await program("run", "send", "latest", "too late")).status == Exit.REFUSED
        for wrong in (("--input", "1"), to_hello[:2], (*to_hello, "1", "--", "true"), (*to_hello, "@/none"), ()):
            assert (await program("run", "start", *wrong)).status == Exit.USAGE
        waiting = await program("run", "start", "--detach", *to_hello, '{"name": "Cid"}')
        early = await program("run", "result", waiting.stdout.decode().strip(), "--json")
        assert (early.status, early.error["reason"]) == (Exit.UNREACHABLE, "run_not_finished")


async def _shown(program: Program, run_id: str) -> None:
    """The result, to the letter, but for what a terminal may not have."""
    printed = await program("run", "result", run_id)
    assert printed.stdout.decode() == '{"text":"Hello, Ann\\u001b[2J! Hello, Ann\\u001b[2J!"}\n'
    assert (await program("run", "result", run_id, "--json")).documents == [
        {"result": {"text": "Hello, Ann\x1b[2J! Hello, Ann\x1b[2J!"}}
    ]
    assert '{"text":"Hello, Ann' in (await program("run", "show", run_id)).stdout.decode()
    verified = await program("receipt", "verify", run_id)
    assert verified.status == Exit.OK, verified.stderr
