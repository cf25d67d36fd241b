"""What an SRE relies on in the manifests: they render, they are what Kubernetes takes, and they fit the code."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_platform.config.loading import describe, load
from oa_platform.postgres.migrate import MigrateSettings
from services.runtime.config import RuntimeSettings
from tests.deploy.crds import is_custom, problems
from tests.deploy.go_modules import SchemasMissing
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import (
    K8S,
    NEWEST,
    NO_RENDERER,
    OVERLAYS,
    PART_OF,
    WORKLOADS,
    Document,
    assert_restricted,
    containers_of,
    environment_of,
    name_of,
    of_kind,
    pod_of,
    render,
    rendered,
    renderer,
    secrets_of,
)
from tests.deploy.settings import SETTINGS

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each overlay in turn."""
    return str(request.param)


def _workloads(overlay: str) -> list[Document]:
    found = of_kind(overlay, *WORKLOADS)
    assert {name_of(workload) for workload in found} == {*SETTINGS, "migrate"}
    return found


@pytest.mark.parametrize("version", NEWEST)
def test_kubernetes_takes_every_object_of_its_own(overlay: str, version: str) -> None:
    own = [document for document in rendered(overlay) if not is_custom(document)]
    assert len(own) >= 30
    for document in own:
        taken_by_kubernetes(document, version)


def test_other_projects_take_every_object_of_theirs(overlay: str) -> None:
    custom = [document for document in rendered(overlay) if is_custom(document)]
    assert bool(custom) == (overlay != "dev")
    try:
        assert [problem for document in custom for problem in problems(document)] == []
    except SchemasMissing as missing:
        pytest.skip(str(missing))


def test_a_field_that_nobody_knows_is_found() -> None:
    (route,) = [document for document in rendered("prod") if document["kind"] == "GRPCRoute"]
    try:
        assert problems({**route, "spec": {**route["spec"], "hostname": "misspelled"}}) != []
    except SchemasMissing as missing:
        pytest.skip(str(missing))


def test_every_pod_is_restricted(overlay: str) -> None:
    for workload in _workloads(overlay):
        assert_restricted(workload)


def test_only_the_autoscaler_says_how_many_pods_there_are(overlay: str) -> None:
    """What is applied would else undo, at every upgrade, what it has decided under load."""
    scaled = {name_of(one) for one in of_kind(overlay, "HorizontalPodAutoscaler")}
    assert scaled == set(SETTINGS)
    assert [name_of(one) for one in of_kind(overlay, "Deployment") if "replicas" in one["spec"]] == []


def test_every_image_is_of_this_project_and_has_a_version(overlay: str) -> None:
    for workload in _workloads(overlay):
        for container in containers_of(workload):
            name, _, tag = container["image"].partition(":")
            assert name == f"openagents/{name_of(workload)}"
            assert tag not in ("", "latest")


def test_every_object_says_what_it_belongs_to(overlay: str) -> None:
    for workload in _workloads(overlay):
        for labels in (workload["metadata"]["labels"], pod_of(workload)["metadata"]["labels"]):
            assert labels.items() >= {**PART_OF, "app.kubernetes.io/name": name_of(workload)}.items()


def test_probes_ask_what_they_mean_to(overlay: str) -> None:
    for workload in of_kind(overlay, "Deployment"):
        (container,) = containers_of(workload)
        paths = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
        scheme = "HTTPS" if "OA_TLS_CERT_FILE" in environment_of(overlay, container) else None
        assert {request.get("scheme") for request in paths.values()} == {scheme}
        assert {probe: request["port"] for probe, request in paths.items()} == dict.fromkeys(paths, "ops")
        # Liveness must never ask a dependency: an outage of the database would restart everybody.
        assert {probe: request["path"] for probe, request in paths.items()} == {
            "startup": "/livez",
            "readiness": "/readyz",
            "liveness": "/livez",
        }


def test_ports_are_those_of_the_settings(overlay: str) -> None:
    for workload in of_kind(overlay, "Deployment"):
        (container,) = containers_of(workload)
        bound = {
            int(value.rpartition(":")[2])
            for name, value in environment_of(overlay, container).items()
            if name
            in ("OA_GRPC_ADDRESS", "OA_OPS_ADDRESS", "OA_HTTP_ADDRESS", "OA_WS_ADDRESS", "OA_WORKER_GRPC_ADDRESS")
        }
        assert {port["containerPort"] for port in container["ports"]} == bound


def test_the_grace_period_is_what_the_service_is_told(overlay: str) -> None:
    for workload in of_kind(overlay, "Deployment"):
        (container,) = containers_of(workload)
        told = environment_of(overlay, container)["OA_GRACE_PERIOD_S"]
        assert pod_of(workload)["spec"]["terminationGracePeriodSeconds"] == int(told)


def test_services_find_their_pods(overlay: str) -> None:
    deployments = {name_of(one): containers_of(one)[0]["ports"] for one in of_kind(overlay, "Deployment")}
    for service in of_kind(overlay, "Service"):
        ports = {port["name"]: port["containerPort"] for port in deployments[_selected(service)]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_addresses_between_services_are_services(overlay: str) -> None:
    served = {
        f"{name_of(service)}:{port['port']}"
        for service in of_kind(overlay, "Service")
        for port in service["spec"]["ports"]
    }
    for workload in of_kind(overlay, "Deployment"):
        environment = environment_of(overlay, containers_of(workload)[0])
        for name in ("OA_CONTROL_GRPC", "OA_RUNTIME_GRPC", "OA_PROJECTOR_GRPC", "OA_CONTROL_URL"):
            if name in environment:
                assert environment[name].rpartition("/")[2] in served


def _selected(document: Document) -> str:
    selector: Mapping[str, Any] = document["spec"]["selector"]
    return str(selector.get("app.kubernetes.io/name") or selector["matchLabels"]["app.kubernetes.io/name"])


def test_no_policy_speaks_of_a_port_or_pod_that_is_not_there(overlay: str) -> None:
    names = {*SETTINGS, "migrate", "worker"}
    ports = {port["name"] for one in of_kind(overlay, "Deployment") for port in containers_of(one)[0]["ports"]}
    for policy in of_kind(overlay, "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        for rule in rules:
            assert {port["port"] for port in rule.get("ports", ()) if isinstance(port["port"], str)} <= ports
            for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                label = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
                assert label is None or label in names


def test_secrets_are_only_referred_to(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    needed = {name for workload in _workloads(overlay) for name, optional in secrets_of(workload) if not optional}
    assert needed >= {f"openagents-{name}" for name in (*SETTINGS, "migrate")}


def test_what_an_overlay_sets_stands(overlay: str) -> None:
    """Components are merged over the overlay that names them: one that sets the same variable would win, silently."""
    kustomization = yaml.safe_load((K8S / "overlays" / overlay / "kustomization.yaml").read_text("utf-8"))
    found = {
        document["metadata"]["name"].rpartition("-")[0]: document["data"] for document in of_kind(overlay, "ConfigMap")
    }
    for generator in kustomization["configMapGenerator"]:
        said = dict(literal.split("=", 1) for literal in generator["literals"])
        assert said.items() <= found[generator["name"]].items()


def test_every_variable_is_a_setting(overlay: str) -> None:
    for workload in _workloads(overlay):
        known = {row.variable for row in describe(SETTINGS.get(name_of(workload), MigrateSettings))}
        known |= {f"{name}_FILE" for name in known}
        shared = {row.variable for settings in SETTINGS.values() for row in describe(settings)}
        for container in containers_of(workload):
            for name in environment_of(overlay, container):
                assert name in known or name in shared, f"{name} is no setting of {name_of(workload)}"


def test_services_start_from_what_a_pod_finds(overlay: str, tmp_path: Path) -> None:
    """The settings of each service are loaded from its pod's environment, with secrets of the right form."""
    for workload in of_kind(overlay, "Deployment"):
        (container,) = containers_of(workload)
        environment = _with_secrets(environment_of(overlay, container), tmp_path)
        load(SETTINGS[name_of(workload)], environment | {"OA_ACCEPTED_SERVICES": f"control={'a' * 64}"})


def test_the_artifacts_of_a_runtime_fit_into_its_temporary_disk(overlay: str, tmp_path: Path) -> None:
    """Otherwise Kubernetes would evict the replica, with everything that it does."""
    (workload,) = [one for one in of_kind(overlay, "Deployment") if name_of(one) == "runtime"]
    (container,) = containers_of(workload)
    environment = _with_secrets(environment_of(overlay, container), tmp_path)
    settings = load(RuntimeSettings, environment | {"OA_ACCEPTED_SERVICES": f"control={'a' * 64}"})
    at_a_time = settings.artifacts.builds + settings.artifact_cache.fetches
    used = at_a_time * settings.artifacts.max_bytes + settings.replay.cache_bytes + settings.artifact_cache.bytes
    volumes = {volume["name"]: volume for volume in pod_of(workload)["spec"]["volumes"]}
    disk = volumes["tmp"]["emptyDir"]["sizeLimit"]
    all_disks = container["resources"]["limits"]["ephemeral-storage"]
    assert used <= _gibibytes(disk) << 30
    assert sum(_gibibytes(volume["emptyDir"]["sizeLimit"]) for volume in volumes.values() if "emptyDir" in volume) < (
        _gibibytes(all_disks)
    )


def _gibibytes(quantity: str) -> int:
    """The whole gibibytes of a quantity in Mi or Gi."""
    return int(quantity.removesuffix("Gi")) if quantity.endswith("Gi") else int(quantity.removesuffix("Mi")) >> 10


def _with_secrets(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    contents = {
        "OA_SIGNING_KEY_FILE": key,
        "OA_RECEIPT_KEY_FILE": key,
        "OA_HMAC_KEY_FILE": bytes(range(32)).hex().encode(),
        "OA_SERVICE_TOKEN_FILE": bytes(range(32)).hex().encode(),
        "OA_DATABASE_URL_FILE": b"postgresql://control_app:a-password@db:5432/openagents",
    }
    found = dict(environment)
    for name in contents.keys() & environment.keys():
        path = folder / name
        path.write_bytes(contents[name])
        path.chmod(0o600)
        found[name] = str(path)
    return found


def test_a_job_that_argo_cd_runs_before_everything_else_needs_nothing_of_it(overlay: str) -> None:
    """On an empty cluster it would wait for its ServiceAccount, which waits for the Job."""
    first = {(one["kind"], name_of(one)) for one in rendered(overlay) if "PreSync" in _hook(one)}
    for job in of_kind(overlay, "Job"):
        assert _hook(job), "Argo CD makes it anew each time"
        account = ("ServiceAccount", pod_of(job)["spec"]["serviceAccountName"])
        assert account in first or ("Job", name_of(job)) not in first


def _hook(document: Document) -> str:
    return str(document["metadata"].get("annotations", {}).get("argocd.argoproj.io/hook", ""))


def test_the_second_step_of_an_upgrade_is_the_first_with_one_word_more() -> None:
    (first,) = [document for document in rendered("prod") if document["kind"] == "Job"]
    (second,) = [document for document in render(K8S / "contract") if document["kind"] == "Job"]
    for expands, contracts in zip(containers_of(first), containers_of(second), strict=True):
        assert contracts["args"] == ["--contract", *expands["args"]]
        assert {**contracts, "args": expands["args"]} == expands


def test_containers_run_what_the_code_has(overlay: str) -> None:
    for workload in _workloads(overlay):
        for container in containers_of(workload):
            *python, module = container["command"]
            assert python == ["python3", "-P", "-m"]
            assert importlib.util.find_spec(module) is not None
