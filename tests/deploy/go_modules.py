"""What other projects publish as Go modules, fetched where Go is at hand.

The modules are named with their versions and verified by Go's checksum database; nothing of them is kept here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

FETCH_TIMEOUT_S = 240


class SchemasMissing(Exception):
    """There is no Go here, or a module can't be fetched."""


@cache
def fetched(module: str) -> Path:
    """The folder of a module, `path@version`. Raises SchemasMissing."""
    go = shutil.which("go")
    if go is None:
        raise SchemasMissing("there is no go: what other projects define is not checked")
    try:
        done = subprocess.run(
            [go, "mod", "download", "-json", module], capture_output=True, check=True, timeout=FETCH_TIMEOUT_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise SchemasMissing(f"{module} can't be fetched: what it defines is not checked") from None
    return Path(json.loads(done.stdout)["Dir"])
