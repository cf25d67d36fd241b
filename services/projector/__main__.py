"""The projector: read models and summary topics from runtime's log. Run with `python -m services.projector`."""

from oa_platform.process.lifecycle import run_service
from services.projector.config import ProjectorSettings
from services.projector.wiring import start

if __name__ == "__main__":
    run_service(ProjectorSettings, start)
