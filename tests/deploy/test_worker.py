"""Workers in the cluster: the component fits the code, the other manifests and Kubernetes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from apps.worker.settings import WorkerSettings
from oa_platform.config.loading import describe, load
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import (
    NEWEST,
    NO_RENDERER,
    PART_OF,
    Document,
    assert_restricted,
    containers_of,
    name_of,
    of_kind,
    pod_of,
    render,
    rendered,
    renderer,
)
from tests.house.files import REPO

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)


@pytest.fixture(scope="module")
def with_worker() -> tuple[Document, ...]:
    """Staging with workers in the cluster."""
    return render(REPO / "tests" / "deploy" / "with_worker")


def _worker(documents: tuple[Document, ...]) -> Document:
    (found,) = (one for one in documents if one["kind"] == "Deployment" and name_of(one) == "worker")
    return found


@pytest.mark.parametrize("version", NEWEST)
def test_kubernetes_takes_the_objects_of_workers(with_worker: tuple[Document, ...], version: str) -> None:
    added = {(one["kind"], name_of(one)) for one in with_worker} - {
        (one["kind"], name_of(one)) for one in rendered("staging")
    }
    assert {kind for kind, _ in added} == {"ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"}
    for document in with_worker:
        if (document["kind"], name_of(document)) in added:
            assert document["metadata"]["namespace"] == "openagents-staging"
            taken_by_kubernetes(document, version)


def test_a_worker_of_the_cluster_is_restricted_and_of_this_release(with_worker: tuple[Document, ...]) -> None:
    worker = _worker(with_worker)
    (container,) = containers_of(worker)
    assert_restricted(worker)
    for labels in (worker["metadata"]["labels"], pod_of(worker)["metadata"]["labels"]):
        assert labels.items() >= {**PART_OF, "app.kubernetes.io/name": "worker"}.items()
    of_services = {containers_of(one)[0]["image"].partition(":")[2] for one in of_kind("staging", "Deployment")}
    assert {container["image"].partition(":")[2]} == of_services
    assert importlib.util.find_spec(container["command"][-1]) is not None


def test_a_worker_of_the_cluster_starts_from_what_its_pod_finds(
    with_worker: tuple[Document, ...], tmp_path: Path
) -> None:
    (container,) = containers_of(_worker(with_worker))
    (own,) = (one["data"] for one in with_worker if one["kind"] == "ConfigMap" and name_of(one).startswith("worker-"))
    environment = dict(own) | {entry["name"]: entry["value"] for entry in container["env"]}
    known = {row.variable for row in describe(WorkerSettings)}
    assert [name for name in environment if name.removesuffix("_FILE") not in known and name not in known] == []
    key = tmp_path / "api-key"
    key.write_text("oak_" + "x" * 40)
    settings = load(WorkerSettings, environment | {"OA_API_KEY_FILE": str(key)})
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.ca_file is not None
    assert {str(settings.ca_file.parent), str(Path(environment["OA_API_KEY_FILE"]).parent)} <= mounts
    served = {
        f"{name_of(service)}:{port['port']}"
        for service in of_kind("staging", "Service")
        for port in service["spec"]["ports"]
    }
    assert settings.control_url.removeprefix("https://") in served


def test_a_worker_of_the_cluster_hands_its_runs_over_before_it_is_killed(with_worker: tuple[Document, ...]) -> None:
    (own,) = (one["data"] for one in with_worker if one["kind"] == "ConfigMap" and name_of(one).startswith("worker-"))
    assert int(own["OA_WORKER_DRAIN_S"]) < pod_of(_worker(with_worker))["spec"]["terminationGracePeriodSeconds"]


def test_a_worker_sees_no_key_of_a_service(with_worker: tuple[Document, ...]) -> None:
    secrets = {one["name"]: one["secret"] for one in pod_of(_worker(with_worker))["spec"]["volumes"] if "secret" in one}
    assert [item["key"] for item in secrets["tls"]["items"]] == ["ca.crt"]
    assert secrets["secrets"]["secretName"] == "openagents-worker"


def test_a_worker_may_reach_what_lets_it_in(with_worker: tuple[Document, ...]) -> None:
    policies = {name_of(one): one["spec"] for one in with_worker if one["kind"] == "NetworkPolicy"}
    out = {
        (rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], rule["ports"][0]["port"])
        for rule in policies["from-worker"]["egress"]
        if "to" in rule
    }
    let_in = {
        (spec["podSelector"]["matchLabels"]["app.kubernetes.io/name"], rule["ports"][0]["port"])
        for spec in policies.values()
        for rule in spec.get("ingress", ())
        for peer in rule["from"]
        if peer.get("podSelector", {}).get("matchLabels") == {"app.kubernetes.io/name": "worker"}
    }
    assert out == let_in == {("control", "http"), ("runtime", "workers")}
