"""The table of what a replica carries: it has the rows that are measured, and the manifests ask for no less."""

from __future__ import annotations

import re

import pytest

from benchmarks.sizing.rows import all_rows
from tests.deploy.manifests import NO_RENDERER, OVERLAYS, containers_of, name_of, of_kind, renderer
from tests.deploy.sizing import TABLE, maximum_connections, mib_of, table

_UNITS = {"Mi": 1, "Gi": 1024}


def _mib(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


def test_the_page_has_every_row_that_is_measured_and_no_other() -> None:
    assert list(table()) == all_rows(), f"run `python -m benchmarks.sizing` and put its table into {TABLE.name}"


@pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_memory_is_what_was_measured_and_more(overlay: str) -> None:
    for workload in of_kind(overlay, "Deployment"):
        (container,) = containers_of(workload)
        memory = {what: _mib(said["memory"]) for what, said in container["resources"].items()}
        service = name_of(workload)
        assert memory["requests"] >= mib_of(service, "a replica after all of this, memory")
        # Twice as much, for what comes together: pages of history, a burst, a large request.
        least = 2 * mib_of(service, "an idle replica, memory")
        if service == "khala-gateway":
            thousands = maximum_connections(overlay) / 1_000
            least += thousands * mib_of(service, "1,000 connections that wait, memory")
        assert memory["limits"] >= least
