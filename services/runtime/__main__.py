"""The runtime: the authority of runs and their log. Run with `python -m services.runtime`."""

from oa_platform.process.first import before_imports

before_imports()

from oa_platform.process.lifecycle import run_service  # noqa: E402
from services.runtime.config import RuntimeSettings  # noqa: E402
from services.runtime.wiring import start  # noqa: E402

if __name__ == "__main__":
    run_service(RuntimeSettings, start)
