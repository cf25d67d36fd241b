"""The projector: read models and summary topics from runtime's log. Run with `python -m services.projector`."""

from oa_platform.process.first import before_imports

before_imports()

from oa_platform.process.lifecycle import run_service  # noqa: E402
from services.projector.config import ProjectorSettings  # noqa: E402
from services.projector.wiring import start  # noqa: E402

if __name__ == "__main__":
    run_service(ProjectorSettings, start)
