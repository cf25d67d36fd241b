"""What a real API server, its controllers and its scheduler make of the manifests and of the pages' commands.

Too long for `make test`: run it with `make cluster-api`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.cluster_api.processes import ControlPlane
from tests.deploy.cluster_api.site import Site
from tests.deploy.manifests import OVERLAYS
from tests.house.files import REPO

pytestmark = pytest.mark.timeout(1200)

PROD = "deploy/k8s/overlays/prod"
KUSTOMIZATIONS = (
    *(f"deploy/k8s/overlays/{name}" for name in OVERLAYS),
    *(str(path.relative_to(REPO)) for path in sorted((REPO / "tests" / "deploy").glob("with_*"))),
)
UPGRADE = REPO / "docs" / "operations" / "upgrade.md"


@pytest.fixture
def site(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """An installation of an overlay, prod unless a test names others."""
    site = Site(plane, tmp_path, getattr(request, "param", PROD))
    site.install()
    site.settled()
    yield site
    site.remove()


@pytest.mark.parametrize("site", KUSTOMIZATIONS, indirect=True)
def test_an_overlay_is_installed_as_the_page_says_and_applied_again_without_a_change(site: Site) -> None:
    _everything_that_selects_finds_something(site)
    assert site.run(f"kubectl diff -k {site.overlay}") == ""
    again = site.run(f"kubectl apply -k {site.overlay}").splitlines()
    # kubectl says `configured` of every disruption budget, whose selector it replaces as a whole.
    assert [line for line in again if not line.endswith(" unchanged") and "poddisruptionbudget" not in line] == []
    # Another tool that applies on the server's side finds no field on which it disagrees.
    site.run(f"kubectl apply --server-side --field-manager=another -k {site.overlay}")


def _everything_that_selects_finds_something(site: Site) -> None:
    for budget in site.objects("poddisruptionbudgets"):
        assert budget["status"]["expectedPods"] >= 1, budget["metadata"]["name"]
    for service in site.objects("services"):
        name = service["metadata"]["name"]
        slices = site.objects("endpointslices", f"--selector=kubernetes.io/service-name={name}")
        assert [one["endpoints"] for one in slices if one["endpoints"]], name
        assert all(port["port"] for one in slices for port in one["ports"]), name
    for policy in site.objects("networkpolicies"):
        selector = policy["spec"]["podSelector"]
        wanted = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
        wanted += [f"{more['key']} in ({','.join(more['values'])})" for more in selector.get("matchExpressions", ())]
        assert site.objects("pods", f"--selector={','.join(wanted)}"), policy["metadata"]["name"]


def test_an_upgrade_and_its_rollback_as_the_page_says_keep_what_an_autoscaler_decided(site: Site) -> None:
    site.run("kubectl -n openagents scale deployment/control --replicas=5")
    for section, version in (("First step: the new release", "0.2.0"), ("Rollback", "0.1.0")):
        site.run(_cluster_commands(section))
        site.settled()
        deployments = {one["metadata"]["name"]: one["spec"] for one in site.objects("deployments")}
        assert deployments["control"]["replicas"] == 5
        assert all(_image(spec).endswith(f":{version}") for spec in deployments.values())
    site.run(_cluster_commands("Second step: what only the release before needed"))
    assert site.run(f"kubectl diff -k {site.overlay}") == ""


def test_a_release_that_never_gets_ready_takes_no_pod_away(site: Site) -> None:
    site.run("sed -i 's/newTag: .*/newTag: broken/' deploy/k8s/components/release/kustomization.yaml")
    site.run(f"kubectl -n openagents delete job migrate && kubectl apply -k {PROD}")
    for deployment in site.objects("deployments"):
        name = deployment["metadata"]["name"]
        site.wait("jsonpath={.status.unavailableReplicas}=1", f"deployment/{name}")
        site.wait("jsonpath={.status.availableReplicas}=3", f"deployment/{name}")


def test_a_secret_is_replaced_as_the_page_says_and_keeps_its_type_and_labels(site: Site) -> None:
    site.run("kubectl apply -f ./secrets/database-secrets.json")
    page = (REPO / "docs" / "operations" / "secrets.md").read_text("utf-8")
    replacing = page.partition("    kubectl ")[2].partition("    kubectl -n openagents rollout")[0]
    for name, key in (("openagents-runtime", "database-url"), ("openagents-database-runtime-app", "password")):
        before = _secret(site, name)
        (site.folder / "secrets" / name / key).write_text("another")
        site.run("kubectl " + replacing.replace("openagents-runtime", name))
        after = _secret(site, name)
        assert after["data"][key] == base64.b64encode(b"another").decode()
        assert after["data"].keys() == before["data"].keys()
        assert (after["type"], after["metadata"]["labels"]) == (before["type"], before["metadata"]["labels"])


def _secret(site: Site, name: str) -> Any:
    return json.loads(site.run(f"kubectl -n openagents get secret {name} -o json"))


def _image(deployment: Any) -> str:
    return str(deployment["template"]["spec"]["containers"][0]["image"])


def _cluster_commands(section: str) -> str:
    """A section's commands, without those that need a database."""
    found = re.search(rf"^## {re.escape(section)}\n.*?^```\n(.*?)^```", UPGRADE.read_text("utf-8"), re.M | re.S)
    assert found, section
    return "".join(line for line in found[1].splitlines(keepends=True) if not line.startswith("oa "))
