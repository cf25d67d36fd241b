"""Control: people, tokens and the public edge. Run with `python -m services.control`."""

from __future__ import annotations

from oa_platform.process.lifecycle import run_service
from services.control.config import ControlSettings
from services.control.wiring import start

if __name__ == "__main__":
    run_service(ControlSettings, start)
