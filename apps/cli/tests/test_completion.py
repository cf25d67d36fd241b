"""Shell completion: what the real shells ask `oa`, and what a real bash makes of the script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apps.cli.commands.completion import COMPLETE_VARIABLE, SHELLS
from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program

ASKED_BY = {
    "bash": {"COMP_WORDS": "oa run st", "COMP_CWORD": "2"},
    "zsh": {"COMP_WORDS": "oa run st", "COMP_CWORD": "2"},
    "fish": {"COMP_WORDS": "oa run ", "COMP_CWORD": "st"},
}
IN_BASH = """
source <("$1" completion bash) && complete -p oa
for line in "oa run st" "oa run start --tit" "oa comp" "oa "; do
    IFS=' ' read -ra COMP_WORDS <<< "$line"
    [ "$line" = "oa " ] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _oa_completion "$1"
    echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.parametrize("shell", SHELLS)
async def test_oa_completes_a_command(shell: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    script = await program("completion", shell)
    assert (script.status, script.stderr) == (Exit.OK, "")
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in script.stdout.decode()
    asked = await program(env={COMPLETE_VARIABLE: f"{shell}_complete", **ASKED_BY[shell]})
    assert asked.status == 0, asked.stderr
    assert "start" in asked.stdout.decode().replace(",", "\n").replace("\t", "\n").splitlines()
    assert "stop" not in asked.stdout.decode()


async def test_json_holds_the_script(tmp_path: Path) -> None:
    (document,) = (await Program(tmp_path)("completion", "fish", "--json")).documents
    assert document["shell"] == "fish"
    assert "complete" in document["script"]


def test_a_real_bash_completes(tmp_path: Path) -> None:
    bash, program = shutil.which("bash"), Path(sys.prefix) / "bin" / "oa"
    assert bash is not None
    env = {**os.environ, "OA_HOME": str(tmp_path)}
    done = subprocess.run(
        [bash, "--norc", "-c", IN_BASH, "bash", str(program)],
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    registered, command, option, own, every = done.stdout.splitlines()
    assert "_oa_completion oa" in registered
    assert (command, option, own) == ("start", "--title", "completion")
    assert {"run", "up", "receipt", "admin"} <= set(every.split())
