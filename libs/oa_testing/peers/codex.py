"""The real Codex, for tests: where it is, and a home for it whose only model is the test's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from oa_testing.peers import mcp_server

CODEX = Path(__file__).parents[3] / "tools" / "codex" / "node_modules" / ".bin" / "codex"
"""Where `make codex` installs it."""
PROVIDER_KEY = "sk-test-0123456789abcdef"
"""The provider's key in the worker's environment. It must not appear in a log."""


def installed_codex() -> Path:
    """The path of the program. Skips the test if it is not installed."""
    if not CODEX.exists():
        pytest.skip("Codex is not installed here: `make codex` does it, where there is npm")
    return CODEX


ASKING = f"""
[mcp_servers.booking]
command = "{sys.executable}"
args = ["{mcp_server.__file__}"]

[features]
default_mode_request_user_input = true
"""
"""Settings of a Codex that may ask people itself, and whose MCP server `booking` (`mcp_server`) does so, too."""


def codex_environment(home: Path, base_url: str, more: str = "") -> Mapping[str, str]:
    """Variables of a worker whose Codex has its home in `home`, and asks the provider at `base_url`.

    `more`: further text for its config.toml.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(
        f"""
model = "test-model"
model_provider = "test"

[model_providers.test]
name = "test"
base_url = "{base_url}"
env_key = "TEST_PROVIDER_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false

[otel]
exporter = "none"
{more}""",
        "utf-8",
    )
    # Codex's sandbox needs helper programs, and Codex makes none in a home that lies in the folder of temporary files.
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    ours = {"HOME": str(home), "CODEX_HOME": str(home), "TMPDIR": str(temporary)}
    return {**kept, **ours, "TEST_PROVIDER_KEY": PROVIDER_KEY}
