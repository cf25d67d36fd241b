"""What somebody with one machine relies on: Compose takes the files, and they fit the code and the manifests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from apps.cli.admin.secrets import new_secrets, write_secrets
from oa_platform.config.loading import describe
from oa_platform.config.parsers import Address
from oa_platform.config.production import production_problems
from oa_platform.config.shared import OpsSettings, TlsSettings
from oa_platform.health.readiness import Readiness
from oa_platform.http.ops import ops_server
from oa_platform.postgres.migrate import MigrateSettings
from oa_platform.system.clock import SystemClock
from oa_platform.tls.protection import service_protection
from oa_testing.postgres import free_port
from oa_testing.waiting import PATIENCE_S
from services.control.config import ControlSettings
from tests.deploy.compose import (
    COMPOSE,
    EDGE_TLS,
    ONE_MACHINE,
    Document,
    environment_of,
    mounts_of,
    on_this_machine,
    project,
    settings_of,
)
from tests.deploy.go_modules import SchemasMissing, fetched
from tests.deploy.manifests import NO_RENDERER, containers_of, name_of, of_kind, pod_of, renderer
from tests.deploy.settings import SETTINGS

SCHEMA = "github.com/compose-spec/compose-go/v2@v2.9.0"
MIGRATIONS = ("migrate-control", "migrate-runtime", "migrate-projector")
OPTIONS: tuple[tuple[str, ...], ...] = ((ONE_MACHINE,), (ONE_MACHINE, EDGE_TLS))

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="this machine has no openssl")
needs_renderer = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of secrets, made as the page says."""
    folder = tmp_path_factory.mktemp("machine") / "secrets"
    write_secrets(folder, new_secrets("postgres:5432"), "openagents")
    return folder


@pytest.fixture(params=OPTIONS, ids="+".join)
def whole(request: pytest.FixtureRequest, secrets: Path) -> Document:
    """The project, without the option and with it."""
    return project({"SECRETS": str(secrets), "SITE_HOST": "api.openagents.example"}, *request.param)


@cache
def _validator() -> Any:
    schema = json.loads((fetched(SCHEMA) / "schema" / "compose-spec.json").read_text("utf-8"))
    return jsonschema.Draft7Validator(schema)


def _problems(document: Document) -> list[str]:
    try:
        return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(dict(document))]
    except SchemasMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("file", [ONE_MACHINE, EDGE_TLS])
def test_compose_takes_the_file(file: str) -> None:
    assert _problems(project({"SITE_HOST": "api.openagents.example"}, file)) == []


def test_a_key_that_nobody_knows_is_found() -> None:
    document = project({}, ONE_MACHINE)
    assert _problems({**document, "services": {"control": {"image": "control", "comand": []}}}) != []


def test_the_name_in_the_certificate_has_to_be_given() -> None:
    with pytest.raises(KeyError, match="the name of control"):
        project({}, EDGE_TLS)


def test_every_service_of_ours_is_there(whole: Document) -> None:
    assert whole["services"].keys() == {*SETTINGS, *MIGRATIONS, "postgres"}


def test_images_have_a_version(whole: Document) -> None:
    for service in whole["services"].values():
        assert service["image"].rpartition(":")[2] not in ("", "latest")


def test_containers_of_ours_have_no_more_rights_than_pods(whole: Document) -> None:
    for name in (*SETTINGS, *MIGRATIONS):
        service = whole["services"][name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(volume.endswith((":ro", ":/tmp")) for volume in service["volumes"])


def test_every_variable_is_a_setting(whole: Document) -> None:
    shared = {row.variable for settings in SETTINGS.values() for row in describe(settings)}
    for name in (*SETTINGS, *MIGRATIONS):
        own = {row.variable for row in describe(SETTINGS.get(name, MigrateSettings))}
        service = whole["services"][name]
        for variable in environment_of(service):
            known = own if variable in service.get("environment", {}) else own | shared
            assert variable.removesuffix("_FILE") in known or variable in known, f"{variable} is no setting of {name}"


def test_services_start_in_production_from_what_they_find(whole: Document) -> None:
    for name in SETTINGS:
        settings = settings_of(name, whole["services"][name])
        assert list(production_problems(settings)) == []


def test_every_secret_of_the_files_is_one_that_is_made(whole: Document, secrets: Path) -> None:
    for name in (*SETTINGS, *MIGRATIONS, "postgres"):
        service = whole["services"][name]
        found = on_this_machine(environment_of(service), mounts_of(service))
        paths = [Path(value) for value in found.values() if value.startswith(str(secrets))]
        made = [path for path in paths if path.parent.name.startswith("openagents-")]
        assert made, f"{name} has no secrets"
        assert [path for path in made if not path.is_file()] == []


@needs_openssl
def test_every_certificate_of_the_files_is_one_that_is_made(tmp_path: Path, secrets: Path) -> None:
    _certificates(tmp_path)
    document = project({"SECRETS": str(tmp_path)}, ONE_MACHINE)
    for name in SETTINGS:
        service = document["services"][name]
        source = Path(mounts_of(service)["/etc/openagents/tls"])
        assert {path.name for path in source.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
        found = environment_of({**service, "env_file": ["site.env"]})
        assert {Path(value).name for key, value in found.items() if "_TLS_" in key} == {"ca.crt", "tls.crt", "tls.key"}


def test_calls_go_where_somebody_listens(whole: Document) -> None:
    served = set()
    for name, service in whole["services"].items():
        names = {name, *service.get("networks", {}).get("default", {}).get("aliases", ())}
        served |= {f"{one}:{port}" for one in names for port in _bound(environment_of(service))}
    for name in SETTINGS:
        environment = environment_of(whole["services"][name])
        calls = [
            environment.get(key, "")
            for key in ("OA_CONTROL_GRPC", "OA_RUNTIME_GRPC", "OA_PROJECTOR_GRPC", "OA_CONTROL_URL")
        ]
        assert [call for call in calls if call and call.rpartition("/")[2] not in served] == []


def test_published_ports_are_those_of_the_settings(whole: Document) -> None:
    for name in SETTINGS:
        service = whole["services"][name]
        published = {int(port.rpartition(":")[2]) for port in service["ports"]}
        grpc_of_services = int(environment_of(service)["OA_GRPC_ADDRESS"].rpartition(":")[2])
        # Operators call control's.
        hidden = set() if name == "control" else {grpc_of_services}
        assert published == _bound(environment_of(service)) - hidden


def test_nothing_listens_beyond_the_machine_unless_it_is_told_to(whole: Document) -> None:
    ports = [port for service in whole["services"].values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    opened = project({"EDGE_ADDRESS": "0.0.0.0"}, ONE_MACHINE)["services"]
    beyond = [port for service in opened.values() for port in service.get("ports", ()) if port.startswith("0.0.0.0:")]
    assert sorted(int(port.rpartition(":")[2]) for port in beyond) == [8080, 8090, 9444]


def test_the_grace_period_is_what_the_service_is_told(whole: Document) -> None:
    for name in SETTINGS:
        service = whole["services"][name]
        assert service["stop_grace_period"] == f"{environment_of(service)['OA_GRACE_PERIOD_S']}s"


def test_migrations_come_before_every_service(whole: Document) -> None:
    services = whole["services"]
    for name in SETTINGS:
        before = _all_before(services, name)
        assert {*MIGRATIONS, "postgres"} <= before
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in MIGRATIONS else "service_healthy"
            assert how["condition"] == wanted, f"{name} after {other}"
            assert other in MIGRATIONS or "healthcheck" in services[other]


@needs_renderer
def test_containers_are_those_of_the_cluster(secrets: Path) -> None:
    services = project({"SECRETS": str(secrets)}, ONE_MACHINE)["services"]
    for workload in of_kind("dev", "Deployment", "Job"):
        for container in containers_of(workload):
            name = name_of(workload)
            service = services[name if name in SETTINGS else f"migrate-{container['name']}"]
            assert service["image"].partition(":")[0].rpartition("/")[2] == container["image"].partition(":")[0][11:]
            assert service["entrypoint"] == container["command"]
            assert service.get("command") == container.get("args")
            own = {entry["name"]: entry["value"] for entry in container.get("env", ())}
            assert service["environment"] == own
            files = {mount["mountPath"] for mount in container["volumeMounts"]} - {"/tmp", "/var/cache/openagents"}
            assert files <= mounts_of(service).keys()
        if name in SETTINGS:
            grace = pod_of(workload)["spec"]["terminationGracePeriodSeconds"]
            assert services[name]["stop_grace_period"] == f"{grace}s"


def test_what_the_settings_share_with_the_cluster_are_its_own_files(whole: Document) -> None:
    for name in SETTINGS:
        files = whole["services"][name]["env_file"]
        assert files[:2] == ["../k8s/base/openagents.env", f"../k8s/base/{name}/config.env"]
        assert files[-1] == "./site.env"


def test_the_option_replaces_the_certificate_for_everybody_outside(secrets: Path) -> None:
    variables = {"SECRETS": str(secrets), "SITE_HOST": "api.openagents.example"}
    services = project(variables, ONE_MACHINE, EDGE_TLS)["services"]
    for name in ("control", "khala-gateway", "runtime"):
        found = on_this_machine(environment_of(services[name]), mounts_of(services[name]))
        assert found["OA_EDGE_TLS_CERT_FILE"] == f"{secrets}/edge/tls.crt"
        assert found["OA_TLS_CERT_FILE"] == f"{secrets}/tls/{name}/tls.crt"
    control = settings_of("control", services["control"])
    assert isinstance(control, ControlSettings)
    assert control.proxies.trusted == ()
    assert services["control"]["networks"]["default"]["aliases"] == ["control-edge", "api.openagents.example"]


@needs_openssl
@pytest.mark.parametrize("phase", ["running", "draining"])
async def test_the_health_check_says_what_readiness_says(tmp_path: Path, secrets: Path, phase: str) -> None:
    """The check's own command, in front of a real ops port with a certificate that the script made."""
    _certificates(tmp_path)
    own = tmp_path / "tls" / "runtime"
    service = project({"SECRETS": str(secrets)}, ONE_MACHINE)["services"]["runtime"]
    _, python, flag, program, url = service["healthcheck"]["test"]
    assert python == "python3"
    port = free_port()
    readiness = Readiness(PATIENCE_S)
    readiness.phase = phase
    files = TlsSettings(cert_file=own / "tls.crt", key_file=own / "tls.key", ca_file=own / "ca.crt")
    settings = OpsSettings(address=Address("127.0.0.1", port), check_timeout_s=PATIENCE_S)
    async with (
        service_protection(files, SystemClock()) as protection,
        ops_server(settings, "runtime", readiness, protection),
    ):
        command = [sys.executable, flag, program.replace("/etc/openagents/tls", str(own))]
        done = await _run(*command, url.replace("9181", str(port)))
    assert (done == 0) == (phase == "running")


@needs_openssl
def test_certificates_are_renewed_under_the_same_authority(tmp_path: Path) -> None:
    _certificates(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    _certificates(tmp_path)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    kept = {path.name for path in before if before[path] == after[path]}
    assert kept == {"ca.crt", "ca.key"}
    assert {path.stat().st_mode & 0o777 for path in after} == {0o600}
    for pair in (tmp_path / "openagents-operator", *(tmp_path / "tls" / name for name in SETTINGS)):
        ssl.create_default_context(cafile=pair / "ca.crt").load_cert_chain(pair / "tls.crt", pair / "tls.key")


async def _run(*command: str) -> int | None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


def test_certificates_that_can_not_be_made_are_reported(tmp_path: Path) -> None:
    (tmp_path / "openssl").write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    (tmp_path / "openssl").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [COMPOSE / "certificates.sh", tmp_path / "secrets"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "openssl failed, and no more certificates were made: no room left" in done.stderr


def _certificates(folder: Path) -> None:
    subprocess.run([COMPOSE / "certificates.sh", folder], check=True, capture_output=True, timeout=PATIENCE_S)


def _bound(environment: dict[str, str]) -> set[int]:
    """The ports on which a container listens."""
    addresses = [value for name, value in environment.items() if name.endswith("_ADDRESS")]
    return {int(value.rpartition(":")[2]) for value in addresses}


def _all_before(services: Document, name: str) -> set[str]:
    found: set[str] = set()
    for other in services[name].get("depends_on", {}):
        found |= {other, *_all_before(services, other)}
    return found
