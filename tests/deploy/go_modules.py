"""What other projects publish as Go modules, fetched, and built into programs, where Go is at hand.

The modules are named with their versions and verified by Go's checksum database; nothing of them is kept here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

FETCH_TIMEOUT_S = 240
BUILD_TIMEOUT_S = 900
"""For a program that was never built here: afterwards Go has its parts."""


class SchemasMissing(Exception):
    """There is no Go here, or a module can't be fetched."""


@cache
def fetched(module: str) -> Path:
    """The folder of a module, `path@version`. Raises SchemasMissing."""
    missing = f"{module} can't be fetched: what it defines is not checked"
    return Path(json.loads(_go(["mod", "download", "-json", module], None, missing))["Dir"])


def built(source: Path, folder: Path, timeout_s: float = BUILD_TIMEOUT_S) -> Path:
    """The program whose Go code, with versions and hashes of all modules, is in `source`. Raises SchemasMissing.

    Only what can't be fetched is missing: a program that can't be compiled is a defect, as CalledProcessError.
    """
    program = folder / source.name
    _go(
        ["list", "-mod=readonly", "-deps", "."],
        source,
        f"the modules of {source.name} can't be fetched: it checks nothing",
    )
    subprocess.run(
        [_program(), "build", "-mod=readonly", "-o", str(program), "."], cwd=source, check=True, timeout=timeout_s
    )
    return program


def _program() -> str:
    go = shutil.which("go")
    if go is None:
        raise SchemasMissing("there is no go: what other projects define is not checked")
    return go


def _go(arguments: list[str], folder: Path | None, missing: str) -> bytes:
    """What Go says, having fetched what it needs. Raises SchemasMissing(missing)."""
    command = [_program(), *arguments]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=FETCH_TIMEOUT_S).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise SchemasMissing(missing) from None
