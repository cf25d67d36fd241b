"""The pages of the tutorial are followed as they are written: each block in its turn, with the output that it shows."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_testing.stack import StackUnderTest
from tests.e2e.pages import Block, blocks_of, keep
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO

_NOT_HERE = "pip install "
"""The package is installed already: as a checkout."""
_ELSEWHERE = ("docker", "kubectl")
"""There is neither a registry nor a cluster: these do nothing. tests/deploy/test_tutorial_page.py looks at them."""


_SHELL = """
set -euo pipefail
trap 'echo "this failed: $BASH_COMMAND"' ERR
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
"""


def script_of(blocks: list[Block]) -> Iterator[str]:
    """The lines of bash that follow a page whose files are kept; outputs that it shows are compared."""
    for before, block in zip([None, *blocks], blocks, strict=False):
        match block.language:
            case "python" | "dockerfile" | "yaml":
                assert block.file, "a page says under which name to keep a program"
            case "sh" if not block.text.startswith(_NOT_HERE):
                following = blocks[blocks.index(block) + 1 :]
                if following and following[0].language == "text":
                    yield f"{{\n{block.text}}} > shown"
                    yield f"diff shown <(printf %s {shlex.quote(following[0].text)})"
                else:
                    yield block.text
            case "text":
                assert before is not None
                assert before.language == "sh", "an output follows what prints it"
            case _:
                assert block.text.startswith(_NOT_HERE), block


def environment(stack: StackUnderTest, folder: Path) -> dict[str, str]:
    """Somebody's shell, in which `oa` and `python` are those of this checkout."""
    programs = folder / "bin"
    programs.mkdir()
    for name, module in (("oa", "-m openagents._oa"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        (programs / name).chmod(0o755)
    for name in _ELSEWHERE:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OA_", "PYTHON"))}
    path = os.pathsep.join(str(REPO / part) for part in ("", "libs", "gen"))
    own = {"PATH": f"{programs}{os.pathsep}{kept['PATH']}", "PYTHONPATH": f"{path}{os.pathsep}{folder}"}
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "OA_HOME": str(stack.home)}
    return kept | own | home | {"OA_CONTROL_URL": stack.urls["control"]}


@pytest.mark.parametrize("page", ["write-a-worker.md", "deploy-it.md", "call-the-api.md"])
async def test_a_page_can_be_followed(page: str, stack: StackUnderTest, tmp_path: Path) -> None:
    for tool in ("curl", "jq"):
        if page == "call-the-api.md" and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here, and the page needs it")
    blocks = blocks_of(page)
    keep(blocks, tmp_path)
    lines = list(script_of(blocks))
    assert len(lines) >= 6
    script = "\n".join([_SHELL, "oa login --dev", *lines])
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=tmp_path,
        env=environment(stack, tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
