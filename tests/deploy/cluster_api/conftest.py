"""One control plane for all checks, built once; it knows the resources of the other projects."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_testing.postgres import scratch_directory
from tests.deploy.cluster_api.processes import ControlPlane
from tests.deploy.crds import MODULES
from tests.deploy.go_modules import SchemasMissing, built, fetched
from tests.house.files import REPO

BUILD_TIMEOUT_S = 3600
"""For a whole Kubernetes that was never built here."""
PROGRAMS = REPO / "build" / "cluster_api"


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane that knows the resources of the other projects."""
    try:
        program = built(Path(__file__).parent / "control_plane", PROGRAMS, timeout_s=BUILD_TIMEOUT_S)
        definitions = [fetched(module) / folder for module, folder in MODULES.values()]
    except SchemasMissing as missing:
        pytest.skip(str(missing))
    folder = scratch_directory()
    plane = ControlPlane(program, folder)
    try:
        for of_project in definitions:
            files = [f"--filename={path}" for path in sorted(of_project.glob("*.yaml")) if "kustom" not in path.name]
            plane.kubectl("apply", "--server-side", *files)
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)
