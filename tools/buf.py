"""Runs buf from this project's own environment, without network and without the user's configuration."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
NPM_BIN = REPO / "clients" / "typescript" / "node_modules" / ".bin"
"""The folder of the generator of TypeScript, once it is installed."""
BUF_TIMEOUT_S = 120


class BufError(Exception):
    """buf ended with a status other than zero; the text is its output."""


def run_buf(cwd: Path, *arguments: str) -> str:
    """Run `buf ARGUMENTS` in `cwd` and return its output. Raises BufError with its complaint if it fails."""
    bin_folder = Path(sys.executable).parent
    environment = {
        "PATH": os.pathsep.join((str(bin_folder), str(NPM_BIN), os.environ.get("PATH", os.defpath))),
        "HOME": os.environ.get("HOME", str(REPO)),
        "BUF_CACHE_DIR": str(Path(sys.prefix) / "cache" / "buf"),
        "PYTHONPATH": str(REPO),
        # The path: our gRPC plugin is a module of this folder. The seed: output must not depend on a set's order.
        "PYTHONHASHSEED": "0",
    }
    command = [str(bin_folder / "buf"), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUF_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise BufError((done.stdout + done.stderr).strip())
    return done.stdout
