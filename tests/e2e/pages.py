"""The blocks of a page of the tutorial, as somebody reads them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO

TUTORIAL = REPO / "docs" / "tutorial"
_BLOCK = re.compile(r"(?:^`(?P<file>[A-Za-z_.-]+)`:\n\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.M | re.S)

_NOT_HERE = "pip install "
"""The package is installed already: as a checkout."""
_ELSEWHERE = ("docker", "kubectl")
"""There is neither a registry nor a cluster: these do nothing. tests/deploy/test_tutorial_page.py looks at them."""


_SHELL = """
set -euo pipefail
trap 'echo "this failed: $BASH_COMMAND"' ERR
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
"""


@dataclass(frozen=True)
class Block:
    """One block of a page; `file` is the name under which the page says to keep it."""

    language: str
    text: str
    file: str = ""


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = _BLOCK.finditer((TUTORIAL / page).read_text("utf-8"))
    return [Block(one["language"], one["text"], one["file"] or "") for one in found]


def keep(blocks: list[Block], folder: Path) -> None:
    """Write the files of a page, as it says."""
    for block in blocks:
        if block.file:
            (folder / block.file).write_text(block.text, "utf-8")


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


async def follow(page: str, stack: StackUnderTest, folder: Path, *, before: str = "") -> str:
    """Follow a page in `folder`, after the line of shell `before`; what the commands said. Fails where one does."""
    blocks = blocks_of(page)
    keep(blocks, folder)
    lines = list(script_of(blocks))
    assert len(lines) >= 6
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", "\n".join([_SHELL, before, *lines])),
        cwd=folder,
        env=environment(stack, folder),
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
    return said.decode()
