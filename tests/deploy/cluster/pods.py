"""What the kubelet does: volumes, the container's environment, probes, and the end.

Each pod has an address of its own on loopback. `0.0.0.0` in a setting means "every address of this pod" in a cluster;
here it becomes the pod's address, since all pods share one network. It is the one value that is not taken as it stands.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.cluster.objects import Objects
from tests.deploy.cluster.sandbox import Mount, Sandbox, User, start
from tests.deploy.manifests import Document

_KNOWN_TO_PODS = {
    *("automountServiceAccountToken", "containers", "enableServiceLinks", "initContainers", "restartPolicy"),
    *("securityContext", "serviceAccountName", "terminationGracePeriodSeconds", "topologySpreadConstraints", "volumes"),
}
_KNOWN_TO_CONTAINERS = {
    *("args", "command", "env", "envFrom", "image", "imagePullPolicy", "livenessProbe", "name", "ports"),
    *("readinessProbe", "resources", "securityContext", "startupProbe", "volumeMounts"),
}
_NOT_FOUND = 404


class Failed(Exception):
    """Something in the cluster does not do what its manifest says."""


class Pod:
    """One pod of a template, with its containers, which run one at a time."""

    def __init__(
        self,
        name: str,
        template: Document,
        objects: Objects,
        *,
        address: str,
        machine: tuple[Mount, ...],
        changed: Mapping[str, str],
        home: Path,
    ) -> None:
        self.name = name
        self.labels: Mapping[str, str] = template["metadata"]["labels"]
        self.address = address
        self.spec: Document = template["spec"]
        self.problem = ""
        self.ready_since: float | None = None
        self.left_at: float | None = None
        self.exit_status: int | None = None
        self._objects = objects
        self._machine = machine
        self._changed = changed
        self._home = home
        self._sandbox: Sandbox | None = None
        self._watching: asyncio.Task[None] | None = None
        _refuse_unknown(self.spec, _KNOWN_TO_PODS, name)
        home.mkdir()

    @property
    def ready(self) -> bool:
        """May it be called? Not before its probe passes, and not once it is told to stop."""
        return self.ready_since is not None

    def port(self, name: str | int) -> int:
        """The number of a port, by its name."""
        if isinstance(name, int):
            return name
        (container,) = self.spec["containers"]
        found = {port["name"]: port["containerPort"] for port in container["ports"]}
        if name not in found:
            raise Failed(f"{self.name} has no port {name}")
        return int(found[name])

    def run(self) -> None:
        """Start the one container of a Deployment's pod, and probe it from now on."""
        (container,) = self.spec["containers"]
        self._sandbox = self._start(container)
        self._watching = asyncio.create_task(self._watch(container, self._sandbox))

    async def run_to_the_end(self) -> None:
        """A Job's pod: the initial containers and then the others. Raises Failed when one does not end well."""
        for container in (*self.spec.get("initContainers", ()), *self.spec["containers"]):
            sandbox = self._start(container)
            status = await sandbox.ended()
            if status:
                raise Failed(f"{self.name}: {container['name']} ended with status {status}:\n{sandbox.said}")

    async def stop(self) -> None:
        """What a deletion does: it is ready no more, gets SIGTERM, and SIGKILL after its grace period."""
        self._leave()
        if self._watching is not None:
            self._watching.cancel()
        if self._sandbox is not None:
            self.exit_status = await self._sandbox.stop(self.spec["terminationGracePeriodSeconds"])

    def kill(self) -> None:
        """At the end of a test. Its probes end with it: one that is canceled in a handshake leaves its socket open."""
        if self._sandbox is not None:
            self._sandbox.kill()

    def log(self) -> str:
        """The end of what it said."""
        return self._sandbox.said if self._sandbox else ""

    def _leave(self) -> None:
        if self.ready:
            self.left_at = asyncio.get_running_loop().time()
        self.ready_since = None

    def _start(self, container: Document) -> Sandbox:
        _refuse_unknown(container, _KNOWN_TO_CONTAINERS, self.name)
        security = {**self.spec["securityContext"], **container["securityContext"]}
        if not security["readOnlyRootFilesystem"] or security["capabilities"] != {"drop": ["ALL"]}:
            raise Failed(f"{self.name} wants more than the sandbox gives: {security}")
        user = User(security["runAsUser"], security["runAsGroup"], security["fsGroup"])
        environment = {**self._objects.environment(container), **self._changed}
        here = {key: value.replace("0.0.0.0:", f"{self.address}:") for key, value in environment.items()}
        command = [*container["command"], *container.get("args", ())]
        mounts = (*self._machine, *self._mounts(container, user))
        return start(command, here, mounts, user, self._home / f"{container['name']}.log")

    def _mounts(self, container: Document, user: User) -> list[Mount]:
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        return [
            Mount(self._volume(volumes[mount["name"]], user), mount["mountPath"], not mount.get("readOnly", False))
            for mount in container["volumeMounts"]
        ]

    def _volume(self, volume: Mapping[str, Any], user: User) -> Path:
        folder = self._home / str(volume["name"])
        if folder.exists():
            return folder
        folder.mkdir()
        os.chown(folder, 0, user.group)
        if "emptyDir" in volume:
            folder.chmod(0o2777)
            return folder
        source = volume["secret"]
        for key, text in self._objects.secret(source["secretName"]).items():
            file = folder / key
            file.write_text(text, "utf-8")
            os.chown(file, 0, user.group)
            file.chmod(source["defaultMode"])
        folder.chmod(0o2755)
        return folder

    async def _watch(self, container: Document, sandbox: Sandbox) -> None:
        """Ask the probes, each in its own rhythm, until the container ends or fails them."""
        async with httpx.AsyncClient(verify=_trusting(), trust_env=False) as client, asyncio.TaskGroup() as group:
            group.create_task(self._notice_end(sandbox))
            await self._probe(client, container["startupProbe"], until_passed=True)
            if not self.problem:
                group.create_task(self._probe(client, container["livenessProbe"]))
                group.create_task(self._probe_readiness(client, container["readinessProbe"]))

    async def _notice_end(self, sandbox: Sandbox) -> None:
        while sandbox.exit_status is None:
            await asyncio.sleep(0.05)
        self._leave()
        self._fail(f"ended with status {sandbox.exit_status}")

    async def _probe(self, client: httpx.AsyncClient, probe: Document, *, until_passed: bool = False) -> None:
        failures = 0
        while failures < probe["failureThreshold"] and not self.problem:
            passed = await self._passes(client, probe)
            if passed and until_passed:
                return
            failures = 0 if passed else failures + 1
            await asyncio.sleep(probe["periodSeconds"])
        self._fail(f"failed its probe {probe['httpGet']} {failures} times")

    async def _probe_readiness(self, client: httpx.AsyncClient, probe: Document) -> None:
        failures = 0
        while not self.problem:
            passed = await self._passes(client, probe)
            failures = 0 if passed else failures + 1
            if passed and not self.ready:
                self.ready_since = asyncio.get_running_loop().time()
            elif failures >= probe["failureThreshold"]:
                self._leave()
            await asyncio.sleep(probe["periodSeconds"])

    async def _passes(self, client: httpx.AsyncClient, probe: Document) -> bool:
        request = probe["httpGet"]
        scheme = request.get("scheme", "HTTP").lower()
        url = f"{scheme}://{self.address}:{self.port(request['port'])}{request['path']}"
        try:
            answer = await client.get(url, timeout=probe["timeoutSeconds"])
        except httpx.HTTPError:
            return False
        # The kubelet would ask again; but no later answer will be another one.
        if answer.status_code == _NOT_FOUND:
            self._fail(f"has nothing at {url}")
        return answer.is_success

    def _fail(self, what: str) -> None:
        self.problem = self.problem or f"{self.name} {what}:\n{self.log()}"


def _trusting() -> ssl.SSLContext:
    """The kubelet looks at no certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _refuse_unknown(spec: Document, known: set[str], name: str) -> None:
    if unknown := spec.keys() - known:
        raise Failed(f"{name} has fields that this cluster does not play: {sorted(unknown)}")
