"""An installation in the cluster, as the pages make it: their commands, with the place of an overlay put in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from oa_testing.waiting import PATIENCE_S
from tests.deploy.cluster_api.processes import ControlPlane
from tests.deploy.operations_pages import commands
from tests.house.files import REPO

_OF_PAGES = "deploy/k8s/overlays/prod"
_NAMESPACE_OF_PAGES = "openagents"


class Site:
    """A checkout with secrets, and the namespace that its overlay goes to."""

    def __init__(self, plane: ControlPlane, folder: Path, overlay: str) -> None:
        """`overlay` is a folder of the checkout."""
        self.plane, self.folder, self.overlay = plane, folder, overlay
        shutil.copytree(REPO / "deploy", folder / "deploy")
        shutil.copytree(REPO / "tests" / "deploy", folder / "tests" / "deploy", ignore=_all_but_kustomizations)
        oa = plane.programs / "oa"
        oa.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m apps.cli "$@"\n')
        oa.chmod(0o755)
        rendered = plane.kubectl("kustomize", str(folder / overlay))
        self.namespace = next(line.split()[1] for line in rendered.splitlines() if line.startswith("  namespace: "))

    def run(self, script: str) -> str:
        """What commands of a page say, here; nothing of it may be a warning. Raises AssertionError when one fails."""
        script = script.replace(_OF_PAGES, self.overlay)
        script = script.replace(f"-n {_NAMESPACE_OF_PAGES} ", f"-n {self.namespace} ")
        script = script.replace(f"namespace {_NAMESPACE_OF_PAGES} ", f"namespace {self.namespace} ")
        script = script.replace(f"namespace {_NAMESPACE_OF_PAGES}\n", f"namespace {self.namespace}\n")
        command = ["bash", "-euo", "pipefail", "-c", script]
        environment = {**self.plane.environment(), "PYTHONPATH": f"{REPO}:{REPO}/libs:{REPO}/gen"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "Warning" not in done.stderr, f"{script}\n{done.stderr}"
        return done.stdout

    def install(self) -> None:
        """Do the steps of the page, but for those that need a database, and be cert-manager meanwhile."""
        steps = commands("kubernetes.md", "Install")
        (secrets,) = [step for step in steps if "oa admin secrets new" in step]
        (apply,) = [step for step in steps if "kubectl apply -k" in step]
        self.run(secrets)
        if self.overlay.startswith("tests/"):  # they add to an overlay, which has the namespace
            apply = apply.replace(f"{_OF_PAGES}/namespace.yaml", "deploy/k8s/overlays/staging/namespace.yaml")
        self.run(apply)
        self.issue()
        if "worker" in self.overlay:
            (self.folder / "api-key").write_text("trial")
            (worker,) = [step for step in commands("kubernetes.md", "Workers") if "openagents-worker" in step]
            self.run(worker)

    def issue(self) -> None:
        """Make the Secrets that cert-manager would."""
        for certificate in self.objects("certificates.cert-manager.io"):
            name = certificate["spec"]["secretName"]
            keys = [f"--from-literal={key}=trial" for key in ("ca.crt", "tls.crt", "tls.key")]
            self.plane.kubectl("-n", self.namespace, "create", "secret", "generic", name, *keys)

    def objects(self, kind: str, *selecting: str) -> list[dict[str, Any]]:
        """The objects of a kind in the namespace."""
        found = self.plane.kubectl("-n", self.namespace, "get", kind, "-o", "json", *selecting)
        return list(json.loads(found)["items"])

    def settled(self) -> None:
        """Wait until every Deployment is rolled out, with the replicas that its autoscaler wants, and each Job done."""
        until = time.monotonic() + PATIENCE_S
        while behind := self._behind():
            assert time.monotonic() < until, behind
            time.sleep(0.5)
        for deployment in self.objects("deployments"):
            name = deployment["metadata"]["name"]
            self.run(f"kubectl -n {self.namespace} rollout status --timeout=300s deployment/{name}")
        for job in self.objects("jobs"):
            self.wait("condition=complete", f"job/{job['metadata']['name']}")

    def _behind(self) -> list[str]:
        """The Deployments that have fewer replicas than their autoscalers keep at least."""
        least = {one["metadata"]["name"]: one["spec"]["minReplicas"] for one in self.objects("hpa")}
        replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in self.objects("deployments")}
        return [name for name in least if replicas[name] < least[name]]

    def wait(self, condition: str, what: str) -> None:
        """Wait for a condition of an object."""
        self.plane.kubectl("-n", self.namespace, "wait", f"--for={condition}", f"--timeout={PATIENCE_S:.0f}s", what)

    def remove(self) -> None:
        """Remove everything, and wait until the namespace is gone."""
        self.run(f"kubectl delete -k {self.overlay} --wait --timeout=120s")


def _all_but_kustomizations(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder, name).is_dir() or name == "kustomization.yaml")]
