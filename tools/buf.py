"""Runs buf from this project's own environment, without network and without anything of the user's."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
NPM_BIN = REPO / "clients" / "typescript" / "node_modules" / ".bin"
"""Where the generator of TypeScript is, once it is installed."""
BUF_TIMEOUT_S = 120


class BufError(Exception):
    """buf ended with a status other than zero; the text is what it said."""


def run_buf(cwd: Path, *arguments: str) -> str:
    """What `buf ARGUMENTS` prints, run in `cwd`. Raises BufError with its complaint when it fails."""
    bin_folder = Path(sys.executable).parent
    environment = {
        "PATH": os.pathsep.join((str(bin_folder), str(NPM_BIN), os.environ.get("PATH", os.defpath))),
        "HOME": os.environ.get("HOME", str(REPO)),
        "BUF_CACHE_DIR": str(REPO / ".venv" / "cache" / "buf"),
        "PYTHONPATH": str(REPO),
        # Our gRPC plugin is a module of this folder; generators must not depend on the order of a set.
        "PYTHONHASHSEED": "0",
    }
    command = [str(bin_folder / "buf"), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUF_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise BufError((done.stdout + done.stderr).strip())
    return done.stdout
