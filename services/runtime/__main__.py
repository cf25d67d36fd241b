"""The runtime: the authority of runs and their log. Run with `python -m services.runtime`."""

from oa_platform.process.lifecycle import run_service
from services.runtime.config import RuntimeSettings
from services.runtime.wiring import start

if __name__ == "__main__":
    run_service(RuntimeSettings, start)
