"""What is done before a service's other imports."""

import subprocess
import sys

LOADED = """
import oa_platform.tests.sample_service, httpx, structlog, sys
print(*{name.partition(".")[0] for name, module in sys.modules.items() if module})
"""


def test_a_service_loads_nothing_for_pretty_tracebacks_and_command_lines() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"httpx", "structlog", "uvicorn"} <= loaded
    assert not {"rich", "markdown_it"} & loaded
