"""Control: people, tokens and the public edge. Run with `python -m services.control`."""

from oa_platform.process.first import before_imports

before_imports()

from oa_platform.process.lifecycle import run_service  # noqa: E402
from services.control.config import ControlSettings  # noqa: E402
from services.control.wiring import start  # noqa: E402

if __name__ == "__main__":
    run_service(ControlSettings, start)
