"""A cluster that runs: applies the documents, rolls Deployments, and says when something is not as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from oa_localstack.processes.child import last_lines
from oa_testing.waiting import PATIENCE_S
from tests.deploy.cluster.network import (
    ClusterNames,
    Forwarding,
    Gateway,
    free_network,
    pod_target,
    services,
)
from tests.deploy.cluster.objects import Objects
from tests.deploy.cluster.pods import Failed, Pod
from tests.deploy.cluster.sandbox import Mount, Sandbox, User, start
from tests.deploy.cluster.surroundings import CHANGED, Surroundings, mail_relay
from tests.deploy.manifests import Document, name_of

START_S = 3 * PATIENCE_S
"""How long everything may take to become ready: a guard."""
_POLL_S = 0.05


class Cluster:
    """Pods, and what carries connections to them."""

    def __init__(self, documents: Sequence[Document], around: Surroundings, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.objects = Objects(documents, around.secrets)
        self.forwarding = Forwarding()
        self.stopped: list[Pod] = []
        self._around = around
        self._pods: list[Pod] = []
        self._services = services(self.objects, self.pods)
        self._names: dict[str, Iterator[int]] = {}
        self._network = free_network()
        self._addresses = (f"127.77.{self._network}.{number}" for number in itertools.count(2))
        self.names = ClusterNames(f"127.77.{self._network}.1")
        self._machine = around.machine(self.names.host)
        self._closing = AsyncExitStack()
        self.gateway = Gateway(self.objects, around.site, home)

    @property
    def hosts(self) -> Mapping[str, str]:
        """Host names that everybody can look up, and their addresses."""
        return {host: self.names.fixed[host] for host, _ in self.gateway.hosts()}

    def pods(self) -> list[Pod]:
        """Those that there are, also such as are being stopped."""
        return self._pods

    async def open(self) -> None:
        """Everything but pods: names, the relay, Services, the Gateway."""
        await self._closing.enter_async_context(self.names)
        self._closing.push_async_callback(self.forwarding.aclose)
        control = self.objects.environment(
            self.objects.one("Deployment", "control")["spec"]["template"]["spec"]["containers"][0]
        )
        relay, address = control["OA_SMTP_HOST"], next(self._addresses)
        self.names.fixed[relay] = address
        await self._closing.enter_async_context(mail_relay(address, relay, self._around.site, self.home))
        for name, (service, endpoints) in self._services.items():
            if service["spec"].get("clusterIP") == "None":
                self.names.headless[name] = endpoints
                continue
            self.names.fixed[name] = next(self._addresses)
            for port in service["spec"]["ports"]:
                where = (self.names.fixed[name], port["port"])
                await self.forwarding.listen(f"service {name}", where, pod_target(endpoints, port))
        for host, route in self.gateway.hosts():
            await self._open_host(host, route)

    async def _open_host(self, host: str, route: Document) -> None:
        self.names.fixed[host] = next(self._addresses)
        service, port = self.gateway.backend(route)
        inside, inside_name = self.gateway.inside(route)
        await self.forwarding.listen(
            f"gateway {host}",
            (self.names.fixed[host], self.gateway.port),
            lambda: (self.names.fixed[service], port),
            outside=self.gateway.outside(host, route),
            inside=inside,
            inside_name=inside_name,
        )

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"{log.parent.name}/{log.stem}:\n{last_lines(log, 5)}" for log in sorted(self.home.rglob("*.log"))
        )

    async def close(self) -> None:
        """End all pods at once, and the rest."""
        for pod in self._pods:
            pod.kill()
        await self._closing.aclose()

    async def install(self, *names: str) -> None:
        """The Job first, then the Deployments, all or those that are named; until all of their pods are ready."""
        for job in self.objects.of_kind("Job"):
            await self._new_pod(job, self.objects).run_to_the_end()
        deployments = [one for one in self.objects.of_kind("Deployment") if not names or name_of(one) in names]
        pods = [self._started(one) for one in deployments for _ in range(self._replicas(one))]
        await self.until(lambda: all(pod.ready for pod in pods))
        endpoints = [found for _, found in self._services.values()]
        await self.until(lambda: bool(names) or all(found.now() for found in endpoints))
        # Who came before a Service had any pod came too early; from now on somebody is always there.
        self.forwarding.refused.clear()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until that holds. Raises Failed as soon as a pod does what it should not, or when it never holds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while not holds():
                    self.check()
                    await asyncio.sleep(_POLL_S)
                return
        raise Failed("\n".join(f"{pod.name} is not ready:\n{pod.log()}" for pod in self._pods if not pod.ready))

    def check(self) -> None:
        """Raises Failed when a pod has a problem that was not stopped."""
        for pod in self._pods:
            if pod.problem and pod not in self.stopped:
                raise Failed(pod.problem)

    async def roll(self, *names: str) -> None:
        """A new version of these Deployments, all at a time, each by its own strategy."""
        deployments = [self.objects.one("Deployment", name) for name in names]
        async with asyncio.TaskGroup() as group:
            for deployment in deployments:
                group.create_task(self._roll(deployment))

    async def _roll(self, deployment: Document) -> None:
        spec, name = deployment["spec"], name_of(deployment)
        bounds = spec["strategy"]["rollingUpdate"]
        replicas = self._replicas(deployment)
        most, least = replicas + bounds["maxSurge"], replicas - bounds["maxUnavailable"]
        old = [pod for pod in self._pods if pod.labels["app.kubernetes.io/name"] == name]
        new: list[Pod] = []

        def available() -> list[Pod]:
            before = asyncio.get_running_loop().time() - spec["minReadySeconds"]
            return [pod for pod in (*old, *new) if pod.ready_since is not None and pod.ready_since <= before]

        async with asyncio.TaskGroup() as stopping:
            while old or len(available()) < replicas:
                if len(new) < replicas and len(old) + len(new) < most:
                    new.append(self._started(deployment))
                elif old and len(available()) > least:
                    stopping.create_task(self._stop(old.pop(0)))
                else:
                    self.check()
                    await asyncio.sleep(_POLL_S)

    def _replicas(self, deployment: Document) -> int:
        """As many as it says, or as its autoscaler begins with."""
        if (said := deployment["spec"].get("replicas")) is not None:
            return int(said)
        return int(self.objects.one("HorizontalPodAutoscaler", name_of(deployment))["spec"]["minReplicas"])

    async def _stop(self, pod: Pod) -> None:
        self.stopped.append(pod)
        await pod.stop()
        self._pods.remove(pod)

    def _started(self, deployment: Document) -> Pod:
        pod = self._new_pod(deployment, self.objects)
        pod.run()
        self._pods.append(pod)
        return pod

    @contextlib.contextmanager
    def beside(self, objects: Objects, name: str) -> Iterator[Pod]:
        """One more pod of a Deployment, as `objects` say, for a block; no Service leads to it."""
        pod = self._new_pod(objects.one("Deployment", name), objects)
        try:
            pod.run()
            yield pod
        finally:
            pod.kill()

    def _new_pod(self, workload: Document, objects: Objects) -> Pod:
        number = next(self._names.setdefault(name_of(workload), itertools.count(1)))
        name = f"{name_of(workload)}-{number}"
        return Pod(
            name,
            workload["spec"]["template"],
            objects,
            address=next(self._addresses),
            machine=self._machine,
            changed=CHANGED,
            home=self.home / name,
        )

    def worker(self, url: str, api_key: str, gates: Path) -> Sandbox:
        """A worker beside the cluster, in a sandbox as its pods are; commands of its runs reach the folder `gates`."""
        scratch = self.home / "worker"
        scratch.mkdir()
        scratch.chmod(0o777)
        mounts = (*self._machine, Mount(scratch, "/tmp", writable=True), Mount(gates, "/gates", writable=True))
        environment = {"OA_CONTROL_URL": url, "OA_API_KEY": api_key, "OA_CA_FILE": CHANGED["SSL_CERT_FILE"]}
        command = ["python3", "-P", "-m", "apps.worker"]
        return start(command, environment, mounts, User(10001, 10001, 10001), self.home / "worker.log")


@asynccontextmanager
async def running(documents: Sequence[Document], around: Surroundings, home: Path) -> AsyncIterator[Cluster]:
    """A cluster without pods, for a block."""
    cluster = Cluster(documents, around, home)
    try:
        await cluster.open()
        yield cluster
    except BaseException as error:
        error.add_note(cluster.logs())
        raise
    finally:
        await cluster.close()
