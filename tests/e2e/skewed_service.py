"""A real service whose clock is wrong by what stands in a file, in milliseconds: SERVICE FILE."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from oa_platform.config.shared import ServiceSettings
from oa_platform.process.lifecycle import run_service
from oa_testing.clock import SkewedClock


def main(service: str, file: Path) -> None:
    """Never returns."""
    module = importlib.import_module(f"services.{service}.__main__")
    config = importlib.import_module(f"services.{service}.config")
    settings = next(
        each
        for each in vars(config).values()
        if isinstance(each, type) and issubclass(each, ServiceSettings) and each.service == service
    )
    run_service(settings, module.start, clock=SkewedClock(lambda: float(file.read_text() or 0)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
