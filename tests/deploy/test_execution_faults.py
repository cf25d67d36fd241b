"""Executing the manifests fails at each planted fault, and the pod says what whoever looks after it needs to know.

Control and runtime run as the staging overlay has them. A fault is planted into the documents of one more pod beside
them, or into the database, and only that pod is started.
"""

from __future__ import annotations

import asyncio
import copy
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from oa_testing.postgres import REPOSITORY, scratch_directory
from oa_testing.waiting import PATIENCE_S
from tests.deploy.cluster.objects import Missing, Objects
from tests.deploy.cluster.pods import Pod
from tests.deploy.cluster.running import Cluster, running
from tests.deploy.cluster.sandbox import cannot_run
from tests.deploy.cluster.surroundings import Surroundings, surroundings
from tests.deploy.manifests import Document, name_of, rendered

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(cannot_run()), reason=cannot_run()),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

NEWEST_MIGRATION = max(path.name for path in (REPOSITORY / "services" / "projector" / "migrations").glob("*.sql"))
_NEWEST = f"service = 'projector' AND number = {int(NEWEST_MIGRATION[:4])}"
FORGET_A_MIGRATION = f"""
CREATE TABLE oa_migrations.kept AS SELECT * FROM oa_migrations.applied WHERE {_NEWEST};
DELETE FROM oa_migrations.applied WHERE {_NEWEST}
"""  # noqa: S608 - a number
"""As before that migration: a service looks at the record."""
REMEMBER_IT = "INSERT INTO oa_migrations.applied SELECT * FROM oa_migrations.kept; DROP TABLE oa_migrations.kept"
"""As after it."""
HEALTHY = ("control", "runtime")
UNUSED_PORT = 9999
Documents = list[dict[str, Any]]
Plant = Callable[[Documents], None]


def _staging() -> Documents:
    """The overlay, with one pod of each service: what is looked at here does not need two."""
    documents = copy.deepcopy([dict(document) for document in rendered("staging")])
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 1
    return documents


def _one(documents: Documents, kind: str, name: str) -> dict[str, Any]:
    """A document; the name of a ConfigMap goes on with a hash of its content."""
    [found] = [one for one in documents if one["kind"] == kind and _plain_name(one) == name]
    return found


def _plain_name(document: Document) -> str:
    return name_of(document).rpartition("-")[0] if document["kind"] == "ConfigMap" else name_of(document)


def _container(documents: Documents, deployment: str) -> dict[str, Any]:
    [container] = _one(documents, "Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def _setting(config_map: str, variable: str, value: str) -> Plant:
    def plant(documents: Documents) -> None:
        data = _one(documents, "ConfigMap", config_map)["data"]
        assert variable in data
        data[variable] = value

    return plant


def _misspelt(config_map: str, variable: str) -> Plant:
    def plant(documents: Documents) -> None:
        data = _one(documents, "ConfigMap", config_map)["data"]
        data[f"{variable}S"] = data.pop(variable)

    return plant


def _misspelt_in_the_container(documents: Documents) -> None:
    [entry] = [one for one in _container(documents, "projector")["env"] if one["name"] == "OA_DATABASE_URL_FILE"]
    entry["name"] = "OA_DATABASE_URI_FILE"


def _ops_port(documents: Documents) -> None:
    container = _container(documents, "projector")
    [port] = [one for one in container["ports"] if one["name"] == "ops"]
    port["containerPort"] = UNUSED_PORT
    container["startupProbe"]["failureThreshold"] = 2  # nobody will answer, however often it is asked


def _probe_path(documents: Documents) -> None:
    _container(documents, "projector")["startupProbe"]["httpGet"]["path"] = "/healthz"


@dataclass(frozen=True)
class Fault:
    """What is planted, and what is said about it in a pod of the Deployment."""

    plant: Plant
    said: Sequence[str]
    deployment: str = "projector"


REFUSES = f":{UNUSED_PORT}: Failed to connect to remote host: Connection refused"
FAULTS = {
    "port of a peer, in projector": Fault(
        _setting("projector", "OA_RUNTIME_GRPC", f"dns:///runtime:{UNUSED_PORT}"),
        ["not_ready", "not connected to runtime's log", REFUSES],
    ),
    "port of a peer, in the gateway": Fault(
        _setting("khala-gateway", "OA_RUNTIME_GRPC", f"dns:///runtime:{UNUSED_PORT}"),
        ["not_ready", "runtime has not been reached yet", "upstream_unreachable", REFUSES],
        "khala-gateway",
    ),
    "port of a peer that serves something else": Fault(
        _setting("projector", "OA_RUNTIME_GRPC", "dns:///runtime:9444"),
        ["not_ready", "there is no such method here; check the name and the address"],
    ),
    "port where it is probed": Fault(
        _ops_port, ["failed its probe {'path': '/livez', 'port': 'ops'", '"event": "running"', ':9182"']
    ),
    "name of a variable without default": Fault(
        _misspelt_in_the_container,
        ["ended with status 2", "invalid_setting (OA_DATABASE_URL): OA_DATABASE_URL is not set; it must be"],
    ),
    "name of one variable of several that belong together": Fault(
        _misspelt("openagents", "OA_TLS_CERT_FILE"),
        ["ended with status 2", "OA_TLS_CERT_FILE must be set too; set all of OA_TLS_CERT_FILE, OA_TLS_KEY_FILE"],
    ),
    "name of a variable with a default": Fault(
        _misspelt("projector", "OA_RUNTIME_GRPC"),
        # Pods share this machine's loopback: a stack of whoever runs the tests may be there, and refuse in its way.
        ["not_ready", "not connected to runtime's log", ":127.0.0.1:9081: "],
    ),
    "path of a probe": Fault(_probe_path, ["has nothing at https://", ":9182/healthz"]),
}

NO_GRANT = ["ended with status 2", "'projector_app', which may not read projection.checkpoints; sign in as"]
NO_MIGRATION = [
    "ended with status 2",
    f"migration_refused: the database lacks {NEWEST_MIGRATION}; run `oa admin migrate up` first",
]
OTHER_NAME = ["not_ready", "not connected to runtime's log", "Hostname Verification Check failed"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around() -> AsyncIterator[Surroundings]:
    """One database for all."""
    home = scratch_directory()
    async with surroundings(home) as found:
        yield found
    shutil.rmtree(home, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(around: Surroundings) -> AsyncIterator[Cluster]:
    """Control and runtime, ready."""
    async with running(_staging(), around, around.home / "cluster") as found:
        await found.install(*HEALTHY)
        yield found


def _said(cluster: Cluster, pod: Pod) -> str:
    """What the kubelet says of a pod, and the pod's log."""
    logs = (cluster.home / pod.name).glob("*.log")
    return "\n".join([pod.problem, *(log.read_text("utf-8") for log in logs)])


async def _never_ready(cluster: Cluster, objects: Objects, deployment: str, said: Sequence[str]) -> None:
    """Start that pod. It says all of that, and is not ready."""
    with cluster.beside(objects, deployment) as pod:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not all(words in _said(cluster, pod) for words in said):
                    assert not pod.ready
                    await asyncio.sleep(0.05)
        except TimeoutError:
            missing = [words for words in said if words not in _said(cluster, pod)]
            pytest.fail(f"{pod.name} did not say {missing}:\n{_said(cluster, pod)}")
        assert not pod.ready


async def test_without_a_fault_a_pod_is_ready(cluster: Cluster) -> None:
    with cluster.beside(cluster.objects, "projector") as pod:
        await cluster.until(lambda: pod.ready or bool(pod.problem))
        assert pod.problem == ""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_fault_in_the_documents_is_told(cluster: Cluster, fault: Fault) -> None:
    documents = _staging()
    fault.plant(documents)
    await _never_ready(cluster, cluster.objects.edited(documents), fault.deployment, fault.said)


async def test_the_page_for_operators_has_what_is_said() -> None:
    page = (REPOSITORY / "docs" / "operations" / "kubernetes.md").read_text("utf-8")
    table = page.partition("## When something is wrong")[2].partition("\n## ")[0]
    listed = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    faults = [fault.said for fault in FAULTS.values() if fault.plant is not _probe_path]
    for said in [*faults, NO_GRANT, NO_MIGRATION, OTHER_NAME]:
        assert any(words in one for words in listed for one in said if words != "not_ready"), said


async def test_a_secret_that_is_missing_is_named(cluster: Cluster) -> None:
    """As a kubelet does, which starts nothing before all volumes are there."""
    without = cluster.objects.edited(_staging(), without="openagents-projector")
    with pytest.raises(Missing, match="there is no Secret openagents-projector"), cluster.beside(without, "projector"):
        pass


@asynccontextmanager
async def _changed(around: Surroundings, change: str, back: str) -> AsyncIterator[None]:
    """The database after the statement `change`, for a block."""
    owner = await asyncpg.connect(around.secrets["openagents-migrate"]["database-url"])
    try:
        await owner.execute(change)
        try:
            yield
        finally:
            await owner.execute(back)
    finally:
        await owner.close()


async def test_a_grant_that_is_missing_is_told(cluster: Cluster, around: Surroundings) -> None:
    right = "SELECT ON projection.checkpoints"
    async with _changed(around, f"REVOKE {right} FROM projector_app", f"GRANT {right} TO projector_app"):
        await _never_ready(cluster, cluster.objects, "projector", NO_GRANT)


async def test_new_code_on_the_schema_of_the_release_before_is_told(cluster: Cluster, around: Surroundings) -> None:
    """The Deployment was rolled before the Job: the record of migrations is what the code looks at."""
    async with _changed(around, FORGET_A_MIGRATION, REMEMBER_IT):
        await _never_ready(cluster, cluster.objects, "projector", NO_MIGRATION)


async def test_a_certificate_of_another_name_is_told(around: Surroundings) -> None:
    documents = [one for one in _staging() if one["kind"] != "Job"]
    _one(documents, "Certificate", "runtime")["spec"]["dnsNames"] = ["elsewhere", "workers"]
    async with running(documents, around, around.home / "other-name") as cluster:
        await cluster.install(*HEALTHY)
        await _never_ready(cluster, cluster.objects, "projector", OTHER_NAME)
