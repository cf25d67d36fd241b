"""A PostgreSQL in the cluster: its manifest is what the operator takes, and its SQL makes what the services need."""

from __future__ import annotations

import os
from collections.abc import Mapping

import asyncpg
import pytest
import yaml

from apps.cli.admin.secrets import role_secret
from oa_localstack.postgres.server import SUPERUSER, PostgresServer
from oa_platform.config.parsers import Secret
from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres.planes import DATABASE, OWNER, PLANES
from oa_platform.postgres.preparation import migrate_service
from oa_testing.postgres import Database
from tests.deploy.crds import is_custom, problems
from tests.deploy.go_modules import SchemasMissing
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import K8S, NEWEST, NO_RENDERER, Document, containers_of, name_of, render, renderer

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)

WITH_DATABASE = ("control", "projector", "runtime")
_BESIDE_THE_POOL = 2
"""Connections of a replica that listen, or that a start makes."""
_RESERVED = 13
"""Connections that superusers, the standbys and the operator need."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, ...]:
    """An installation with nothing but the services and their database."""
    folder = tmp_path_factory.mktemp("overlay").resolve()
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "agents",
        "resources": [os.path.relpath(K8S / "base", folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in ("postgres", "release")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay), "utf-8")
    return render(folder)


def _one(documents: tuple[Document, ...], kind: str, name: str) -> Document:
    (found,) = (document for document in documents if (document["kind"], name_of(document)) == (kind, name))
    return found


@pytest.fixture
def cluster(documents: tuple[Document, ...]) -> Document:
    """What the operator is asked for."""
    return _one(documents, "Cluster", "openagents-postgres")


def test_the_operator_and_kubernetes_take_it(documents: tuple[Document, ...], cluster: Document) -> None:
    for document in documents:
        if not is_custom(document):
            taken_by_kubernetes(document, NEWEST[-1])
    try:
        assert problems(cluster) == []
        assert problems({**cluster, "spec": {**cluster["spec"], "instancess": 3}}) != []
    except SchemasMissing as missing:
        pytest.skip(str(missing))


def test_what_is_acknowledged_is_on_two_disks(cluster: Document) -> None:
    spec = cluster["spec"]
    assert spec["instances"] == 3
    assert spec["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert spec["postgresql"]["parameters"].keys().isdisjoint({"fsync", "full_page_writes", "synchronous_commit"})
    assert spec["affinity"]["podAntiAffinityType"] == "required"


def test_roles_have_the_passwords_that_the_secrets_have(cluster: Document) -> None:
    start = cluster["spec"]["bootstrap"]["initdb"]
    assert (start["database"], start["owner"], start["encoding"]) == (DATABASE, OWNER, "UTF8")
    assert start["secret"]["name"] == role_secret(OWNER)
    roles = {role["name"]: role for role in cluster["spec"]["managed"]["roles"]}
    assert roles.keys() == {plane.role for plane in PLANES}
    for name, role in roles.items():
        assert role["passwordSecret"]["name"] == role_secret(name)
        assert role["login"]
        assert not any(role[power] for power in ("superuser", "createdb", "createrole", "replication", "bypassrls"))


def test_every_pool_of_an_upgrade_at_full_size_fits(documents: tuple[Document, ...], cluster: Document) -> None:
    room = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"]) - _RESERVED
    pool = DatabaseSettings(url=Secret("")).pool_max + _BESIDE_THE_POOL
    needed = 0
    for name in WITH_DATABASE:
        (container,) = containers_of(_one(documents, "Deployment", name))
        assert all(entry["name"] != "OA_DATABASE_POOL_MAX" for entry in container.get("env", ()))
        surge = _one(documents, "Deployment", name)["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        replicas = _one(documents, "HorizontalPodAutoscaler", name)["spec"]["maxReplicas"]
        needed += (replicas + int(surge)) * pool
    assert needed <= room


def test_services_reach_it_and_nobody_else(documents: tuple[Document, ...]) -> None:
    leaves = _one(documents, "NetworkPolicy", "database")["spec"]
    arrives = _one(documents, "NetworkPolicy", "to-database")["spec"]
    assert set(_named(leaves["podSelector"])) == {*WITH_DATABASE, "migrate"}
    assert leaves["egress"][0]["to"][0]["podSelector"] == arrives["podSelector"]
    (services,) = arrives["ingress"][0]["from"]
    assert services["podSelector"] == leaves["podSelector"]


def _named(selector: Mapping[str, list[Mapping[str, list[str]]]]) -> list[str]:
    (expression,) = selector["matchExpressions"]
    return expression["values"]


async def test_its_sql_makes_what_services_need(
    documents: tuple[Document, ...], cluster: Document, own_postgres: PostgresServer
) -> None:
    """As the operator starts: the owner and its database first, then the SQL, then the passwords of the others."""
    (reference,) = cluster["spec"]["bootstrap"]["initdb"]["postInitApplicationSQLRefs"]["configMapRefs"]
    sql = _one(documents, "ConfigMap", reference["name"])["data"][reference["key"]]
    passwords = {SUPERUSER: own_postgres.superuser_password, **{plane.role: "x" for plane in PLANES}, OWNER: "x"}
    database = Database(DATABASE, own_postgres.port, passwords)
    create_role = f"CREATE ROLE {OWNER} LOGIN PASSWORD 'x'"
    await _execute(own_postgres.dsn(), create_role, f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    await _execute(database.admin, sql, *(f"ALTER ROLE {plane.role} PASSWORD 'x'" for plane in PLANES))
    for plane in PLANES:
        await migrate_service(database.owner, plane.service)
    for plane in PLANES:
        await _execute(database.dsn(plane.role), "SELECT 1")
    await _execute(database.runtime, "SELECT * FROM runtime.events")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _execute(database.control, "SELECT * FROM runtime.events")


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
