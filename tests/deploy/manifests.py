"""The Kubernetes manifests, rendered as an installer would, and what a pod of theirs finds in its environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.house.files import REPO

K8S = REPO / "deploy" / "k8s"
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))
WORKLOADS = ("Deployment", "Job")
NO_RENDERER = "neither kubectl nor kustomize is installed: the manifests are not rendered"

Document = Mapping[str, Any]

if TYPE_CHECKING:
    SafeLoader = yaml.SafeLoader
else:  # the one in C takes a tenth of the time, where PyYAML has it
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NEWEST = ("1.35", "1.36", "1.37")
"""The versions of Kubernetes that the manifests are held against: the three newest that the validator knows."""
PART_OF = {"app.kubernetes.io/part-of": "openagents", "app.kubernetes.io/managed-by": "kustomize"}


def renderer() -> list[str] | None:
    """The command that renders a kustomization, if this machine has one."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


@cache
def rendered(overlay: str) -> tuple[Document, ...]:
    """All documents of an overlay. Raises CalledProcessError when it can't be rendered."""
    return render(K8S / "overlays" / overlay)


def render(folder: Path) -> tuple[Document, ...]:
    """All documents of a kustomization."""
    command = renderer()
    assert command is not None, NO_RENDERER
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True, timeout=60)
    return tuple(document for document in yaml.load_all(done.stdout, SafeLoader) if document)


def of_kind(overlay: str, *kinds: str) -> list[Document]:
    """The documents of these kinds, in the order of the rendering."""
    return [document for document in rendered(overlay) if document["kind"] in kinds]


def name_of(document: Document) -> str:
    """The object's name."""
    return str(document["metadata"]["name"])


def pod_of(workload: Document) -> Document:
    """The pod of a Deployment or Job: its template, with metadata and spec."""
    template: Document = workload["spec"]["template"]
    return template


def containers_of(workload: Document) -> list[Document]:
    """All containers of a pod, the initial ones first."""
    spec = pod_of(workload)["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def config_maps(overlay: str) -> dict[str, Mapping[str, str]]:
    """ConfigMap name -> its data."""
    return {name_of(document): document.get("data", {}) for document in of_kind(overlay, "ConfigMap")}


def environment_of(overlay: str, container: Document) -> dict[str, str]:
    """What the container finds from ConfigMaps and plain values; what Secrets give is not there."""
    maps = config_maps(overlay)
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
    return found | {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}


def secrets_of(workload: Document) -> Iterator[tuple[str, bool]]:
    """The Secrets that a workload refers to, and whether it can do without."""
    for container in containers_of(workload):
        for source in container.get("envFrom", ()):
            if "secretRef" in source:
                yield source["secretRef"]["name"], source["secretRef"].get("optional", False)
    for volume in pod_of(workload)["spec"].get("volumes", ()):
        if "secret" in volume:
            yield volume["secret"]["secretName"], volume["secret"].get("optional", False)


def assert_restricted(workload: Document) -> None:
    """Check that the pod holds to the level `restricted`, and takes no more than it says."""
    spec = pod_of(workload)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == name_of(workload)
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, 10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers_of(workload):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
