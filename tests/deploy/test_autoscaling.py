"""What the autoscalers look at is there, and leaves room for a replica that is lost."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from services.khala_gateway.sockets.metrics import CONNECTIONS
from tests.deploy.manifests import K8S, NO_RENDERER, OVERLAYS, Document, name_of, of_kind, renderer
from tests.deploy.sizing import maximum_connections

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)
METRIC = next(family.name for family in CONNECTIONS.describe())


def _pods_metrics(autoscaler: Document) -> dict[str, Any]:
    """Name of a metric of the pods -> its target."""
    found = [one["pods"] for one in autoscaler["spec"]["metrics"] if one["type"] == "Pods"]
    return {one["metric"]["name"]: one["target"] for one in found}


def _gateways(overlay: str) -> Document:
    (found,) = [one for one in of_kind(overlay, "HorizontalPodAutoscaler") if name_of(one) == "khala-gateway"]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_scaled_by_a_metric_is_scraped(overlay: str) -> None:
    used = {name for one in of_kind(overlay, "HorizontalPodAutoscaler") for name in _pods_metrics(one)}
    assert not used or of_kind(overlay, "PodMonitor")
    assert used == ({METRIC} if overlay == "prod" else set())


def test_gateways_are_scaled_by_cpu_and_by_connections() -> None:
    metrics = _gateways("prod")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]


def test_the_others_have_room_for_the_connections_of_a_gateway_that_is_lost() -> None:
    autoscaler = _gateways("prod")
    target = _pods_metrics(autoscaler)[METRIC]
    assert target["type"] == "AverageValue"
    replicas = autoscaler["spec"]["minReplicas"]
    target_connections = 1_000 * int(target["averageValue"].removesuffix("k"))
    assert target_connections * replicas <= maximum_connections("prod") * (replicas - 1)


def test_the_adapter_serves_what_the_autoscaler_asks_for() -> None:
    path = K8S / "components" / "autoscale-connections" / "prometheus-adapter.yaml"
    (rule,) = yaml.safe_load(path.read_text("utf-8"))["rules"]["custom"]
    assert rule["name"]["as"] == METRIC
    assert rule["seriesQuery"].partition("{")[0] == METRIC
    assert rule["resources"]["overrides"].keys() == {"namespace", "pod"}
    page = (K8S.parents[1] / "docs" / "operations" / "scaling.md").read_text("utf-8")
    assert f"/pods/*/{METRIC}'" in page
