"""What finds pods and carries connections to them: DNS, Services (kube-proxy) and the Gateway.

A pod that becomes ready or leaves is known here only after `SPREAD_S`: in a cluster the word takes its time too, and
connections go to a pod that was told to stop meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil

from oa_platform.tests.names import Names
from oa_testing.peers.authority import Authority, server_context
from oa_testing.peers.forwarding import both_ways, connected, forward
from oa_testing.peers.listener import Listener
from tests.deploy.cluster.objects import Objects
from tests.deploy.cluster.pods import Pod
from tests.deploy.manifests import Document, name_of

SPREAD_S = 1.0
"""How long a change of readiness takes to be known everywhere."""

Pods = Callable[[], Sequence[Pod]]
Target = Callable[[], tuple[str, int] | None]


class Endpoints:
    """The pods of a Service, as the rest of the cluster knows them."""

    def __init__(self, service: Document, pods: Pods) -> None:
        self._selector = service["spec"]["selector"]
        self._pods = pods

    def now(self) -> list[Pod]:
        """Those that are ready since a moment, and those that have left a moment ago."""
        before = asyncio.get_running_loop().time() - SPREAD_S
        return [pod for pod in self._selected() if _within(pod.ready_since, before) or _after(pod.left_at, before)]

    def _selected(self) -> Iterator[Pod]:
        return (pod for pod in self._pods() if self._selector.items() <= pod.labels.items())


def _within(moment: float | None, before: float) -> bool:
    return moment is not None and moment <= before


def _after(moment: float | None, before: float) -> bool:
    return moment is not None and moment > before


class ClusterNames(Names):
    """The cluster's DNS, with the world's beyond it. Every name is found in `fixed` or is a headless Service."""

    def __init__(self, host: str) -> None:
        super().__init__(host=host, port=53)
        self.fixed: dict[str, str] = {}
        self.headless: dict[str, Endpoints] = {}

    def find(self, name: str) -> Sequence[str]:
        """The addresses of a name, in any order, as DNS gives them."""
        if name in self.fixed:
            return [self.fixed[name]]
        addresses = [pod.address for pod in self.headless[name].now()] if name in self.headless else []
        random.shuffle(addresses)
        return addresses


class Forwarding:
    """Carries connections: from a listener, to whatever `target` says at that moment."""

    def __init__(self) -> None:
        self.carried: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._closing = AsyncExitStack()

    async def listen(
        self,
        name: str,
        address: tuple[str, int],
        target: Target,
        *,
        outside: ssl.SSLContext | None = None,
        inside: ssl.SSLContext | None = None,
        inside_name: str | None = None,
    ) -> None:
        """Take connections at `address`, with TLS ended and begun again where there are contexts."""

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            where = target()
            async with AsyncExitStack() as open_now:
                try:
                    if where is None:
                        raise ConnectionRefusedError
                    there = connected(*where, ssl=inside, server_hostname=inside_name)
                    found_reader, found_writer = await open_now.enter_async_context(there)
                except OSError:
                    self.refused[name] += 1
                    raise
                self.carried[name] += 1
                await both_ways(forward(reader, found_writer), forward(found_reader, writer))

        host, port = address
        await self._closing.enter_async_context(Listener(carry, host=host, port=port, tls=outside))

    async def aclose(self) -> None:
        """End everything."""
        await self._closing.aclose()


def services(objects: Objects, pods: Pods) -> dict[str, tuple[Document, Endpoints]]:
    """Service name -> the document and its pods."""
    return {name_of(one): (one, Endpoints(one, pods)) for one in objects.of_kind("Service")}


def pod_target(endpoints: Endpoints, port: Document) -> Target:
    """One of the pods behind a Service's port, by chance, as kube-proxy takes it."""

    def target() -> tuple[str, int] | None:
        pods = endpoints.now()
        pod = random.choice(pods) if pods else None
        return (pod.address, pod.port(port["targetPort"])) if pod else None

    return target


class Gateway:
    """Ends TLS for the routes' host names, and begins it anew towards the Services as BackendTLSPolicies say.

    Each host name has an address of its own. Paths and methods of a route are not looked at.
    """

    def __init__(self, objects: Objects, site: Authority, folder: Path) -> None:
        self._objects = objects
        self._site = site
        self._folder = folder
        self.port = 443

    def hosts(self) -> Iterator[tuple[str, Document]]:
        """Each host name, with its route."""
        for kind in ("HTTPRoute", "GRPCRoute"):
            for route in self._objects.of_kind(kind):
                for host in route["spec"]["hostnames"]:
                    yield host, route

    def outside(self, host: str, route: Document) -> ssl.SSLContext:
        """For clients."""
        folder = self._folder / host
        folder.mkdir()
        context = server_context(folder, self._site.issue(host))
        context.set_alpn_protocols(_protocols(route))
        return context

    def inside(self, route: Document) -> tuple[ssl.SSLContext, str]:
        """For the Service, and the name that its certificate must have."""
        service, _ = self.backend(route)
        for policy in self._objects.of_kind("BackendTLSPolicy"):
            if service in [reference["name"] for reference in policy["spec"]["targetRefs"]]:
                validation: dict[str, Any] = policy["spec"]["validation"]
                [reference] = validation["caCertificateRefs"]
                context = ssl.create_default_context(cadata=self._objects.secret(reference["name"])["ca.crt"])
                context.set_alpn_protocols(_protocols(route))
                return context, validation["hostname"]
        raise LookupError(f"no BackendTLSPolicy speaks of {service}")

    def backend(self, route: Document) -> tuple[str, int]:
        """The Service and its port."""
        [rule] = route["spec"]["rules"]
        [backend] = rule["backendRefs"]
        return backend["name"], backend["port"]


def _protocols(route: Document) -> list[str]:
    return ["h2"] if route["kind"] == "GRPCRoute" else ["http/1.1"]


def free_network() -> int:
    """The third number of addresses 127.77.x.y that no other cluster of this machine uses, or has left pods on."""
    used: set[str] = {found.laddr.ip for found in psutil.net_connections("inet4") if found.laddr}
    networks = {int(address.split(".")[2]) for address in used if address.startswith("127.77.")}
    free: list[int] = sorted({*range(1, 255)} - networks)
    for number in random.sample(free, len(free)):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((f"127.77.{number}.1", 53))
            return number
    raise AssertionError("every network 127.77.x is in use")
