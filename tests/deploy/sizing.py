"""What the page on scaling says that a replica carries, and what the manifests allow it."""

from __future__ import annotations

import re

from oa_platform.config.loading import describe
from services.khala_gateway.config import GatewaySettings
from tests.deploy.manifests import containers_of, environment_of, name_of, of_kind
from tests.house.files import REPO

TABLE = REPO / "docs" / "operations" / "scaling.md"
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([\d,.]+) ([^|]+) \|", re.MULTILINE)


def table() -> dict[tuple[str, str], tuple[float, str]]:
    """Service and what is measured of it -> a number and its unit."""
    section = TABLE.read_text("utf-8").partition("## What a replica carries\n")[2]
    return {
        (service, what): (float(number.replace(",", "")), unit.strip())
        for service, what, number, unit in _ROW.findall(section)
    }


def mib_of(service: str, what: str) -> float:
    """A row that is about memory."""
    number, unit = table()[service, what]
    assert unit == "MiB"
    return number


def maximum_connections(overlay: str) -> int:
    """OA_WS_MAX_CONNECTIONS, as a gateway of the overlay finds it."""
    (workload,) = [one for one in of_kind(overlay, "Deployment") if name_of(one) == "khala-gateway"]
    variable = "OA_WS_MAX_CONNECTIONS"
    default = next(row.default for row in describe(GatewaySettings) if row.variable == variable)
    return int(environment_of(overlay, containers_of(workload)[0]).get(variable, default))
