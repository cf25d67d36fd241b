"""What the pages about web requests tell operators to type works, in their order, at a real control with both sides."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from oa_testing.fork_server import PYTHON
from oa_testing.postgres import REPOSITORY, Database
from services.control.tests.harness import LOOPBACK, OPERATOR_TOKEN, running_control
from services.control.tests.web import built_shell, legacy_process

PAGES = ("docs/operations/web.md", "docs/runbooks/web-routes.md")


def commands(page: str) -> list[list[str]]:
    """The words of every `oa …` that stands on a line of its own."""
    text = (REPOSITORY / page).read_text("utf-8")
    return [shlex.split(found) for found in re.findall(r"^ *oa (.+)$", text, re.MULTILINE)]


async def test_every_command_is_carried_out(control_database: Database, tmp_path: Path) -> None:
    root = str(built_shell(tmp_path / "web"))
    async with (
        legacy_process() as url,
        running_control(control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=root, OA_LEGACY_URL=url) as control,
    ):
        environment = os.environ | {
            "OA_CONTROL_GRPC": f"{LOOPBACK}:{control.grpc_port}",
            "OA_OPERATOR_TOKEN": OPERATOR_TOKEN,
        }
        said: dict[str, list[str]] = {}
        for page in PAGES:
            for words in commands(page):
                process = await asyncio.create_subprocess_exec(
                    *(PYTHON, "-m", "apps.cli", *words),
                    cwd=REPOSITORY,
                    env=environment,
                    stdout=PIPE,
                    stderr=STDOUT,
                )
                output, _ = await process.communicate()
                assert process.returncode == 0, (words, output.decode())
                said.setdefault(" ".join(words[:3]), []).append(output.decode())
    assert set(said) == {
        *(f"admin route {verb}" for verb in ("set", "list", "rollback", "canary")),
        *(f"admin maintenance {verb}" for verb in ("on", "off", "bypass")),
    }
    before, after = said["admin route list"]
    assert "10 % shell" in before
    assert "at 0 %" in after
