"""What the pages for operators tell people to type works: the steps of an installation, and the names in commands."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import yaml

from apps.cli.admin.secrets import new_secrets, write_secrets
from oa_localstack.postgres.server import PostgresServer
from oa_testing.postgres import REPOSITORY
from oa_testing.waiting import PATIENCE_S
from services.control.audit.domain import Action
from tests.deploy.compose import COMPOSE, EDGE_TLS, ONE_MACHINE, Document, environment_of, project
from tests.deploy.operations_pages import PAGES, commands
from tests.deploy.settings import SETTINGS

_PASSWORD = "$(cat ./secrets/openagents-postgres/superuser-password)"
_URL_OF_THE_PAGE = f"postgresql://postgres:{_PASSWORD}@127.0.0.1:5432/postgres"
_STUB = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$TOLD"\n'


def _compose_commands() -> list[list[str]]:
    """The words of every `docker compose` in the pages, without what follows a pipe. A line may go on in the next."""
    text = "\n".join(page.read_text("utf-8") for page in sorted(PAGES.glob("*.md"))).replace("\\\n", " ")
    return [shlex.split(found) for found in re.findall(r"docker compose ([^\n`|>;]+)", text)]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="this machine has no openssl")
async def test_the_steps_of_an_installation_on_one_machine(tmp_path: Path, own_postgres: PostgresServer) -> None:
    """Everything but the containers: `docker` is noted, and the PostgreSQL that it would start is a real one."""
    folder, tools, told = tmp_path / "compose", tmp_path / "tools", tmp_path / "told"
    shutil.copytree(COMPOSE, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    tools.mkdir()
    for name in ("docker", "sudo"):
        (tools / name).write_text(_STUB)
        (tools / name).chmod(0o755)
    steps = [step for step in commands("install.md", "Install") if "make " not in step]
    script = "".join(steps)
    assert len(steps) == 5
    assert _URL_OF_THE_PAGE in script
    script = script.replace(_URL_OF_THE_PAGE, own_postgres.dsn())
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "TOLD": str(told), "HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec("sh", "-euc", script, cwd=folder, env=environment)
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 0
    owned, *of_compose = told.read_text("utf-8").splitlines()
    assert owned.startswith("chown -R 10001:10001 ")
    assert of_compose == ["compose up --detach --wait postgres", "compose up --detach --wait"]
    variables = dict(line.split("=", 1) for line in (folder / ".env").read_text("utf-8").splitlines())
    assert (folder / variables["SITE"]).read_bytes() == (COMPOSE / "site.env").read_bytes()
    handed = {Path(word).name for word in shlex.split(owned) if word.startswith("./secrets/")}
    services = project({}, ONE_MACHINE)["services"]
    mounted = {volume.split(":")[0] for name in (*SETTINGS, "migrate-control") for volume in services[name]["volumes"]}
    assert handed >= {Path(mount).name for mount in mounted if mount.startswith("./secrets/openagents-")} | {"tls"}
    assert all((folder / mount).is_dir() for mount in mounted if mount.startswith("./"))
    dsn = (folder / "secrets" / "openagents-migrate" / "database-url").read_text("utf-8")
    owner = await asyncpg.connect(dsn.replace("@postgres:5432", f"@127.0.0.1:{own_postgres.port}"))
    try:
        assert await owner.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'runtime'") == 1
    finally:
        await owner.close()


def test_commands_of_compose_name_services_and_files_that_there_are() -> None:
    services = project({}, ONE_MACHINE)["services"]
    found = _compose_commands()
    assert len(found) >= 10
    like_services = re.compile(r"control|runtime|projector|khala-.*|migrate-.*|postgres")
    named = {word for words in found for word in words if like_services.fullmatch(word)}
    assert named >= {"postgres", "migrate-control", "control", "khala-gateway"}
    assert named <= services.keys()
    assert f"`COMPOSE_FILE={ONE_MACHINE}:{EDGE_TLS}`" in (PAGES / "install.md").read_text("utf-8")


def test_the_second_step_of_an_upgrade_is_the_first_with_one_word_more() -> None:
    services = project({}, ONE_MACHINE)["services"]
    steps = [words for words in _compose_commands() if "--contract" in words]
    assert [words[2] for words in steps] == [name for name in services if name.startswith("migrate-")]
    for _, _, name, contract, *arguments in steps:
        assert (contract, arguments) == ("--contract", services[name]["command"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_a_secret_is_made_anew_from_its_folder(tmp_path: Path) -> None:
    write_secrets(tmp_path / "secrets", new_secrets("db.example:5432"), "openagents")
    page = (PAGES / "secrets.md").read_text("utf-8")
    found = re.search(r"kubectl -n openagents create secret [^|\\]+", page)
    assert found is not None
    done = subprocess.run(shlex.split(found[0]), cwd=tmp_path, capture_output=True, check=True, timeout=PATIENCE_S)
    made = yaml.safe_load(done.stdout)
    files = {path.name for path in (tmp_path / "secrets" / "openagents-runtime").iterdir()}
    assert (made["metadata"]["name"], made["data"].keys()) == ("openagents-runtime", files)


def _kubectl_commands() -> list[list[str]]:
    """The words of every `kubectl` in the pages, without what follows a pipe. A line may go on in the next."""
    text = "\n".join(page.read_text("utf-8") for page in sorted(PAGES.glob("*.md"))).replace("\\\n", " ")
    found = re.findall(r"^ +(kubectl [^\n|&]+)|^(kubectl [^\n|&]+)|`(kubectl -[^`]+)`", text, re.MULTILINE)
    return [shlex.split("".join(groups)) for groups in found]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_knows_the_commands_of_the_pages_and_their_options() -> None:
    found = _kubectl_commands()
    assert len(found) >= 20
    refused = []
    for words in [*found, ["kubectl", "logs", "--no-such-option"]]:
        # Options are read before help is shown. An unknown command gets the help of all.
        done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        if done.returncode or not re.search(r"^Usage:\n +kubectl \w", done.stdout, re.MULTILINE):
            refused.append(words)
    assert refused == [["kubectl", "logs", "--no-such-option"]]


def test_the_restore_on_kubernetes_has_the_steps_of_the_other_page_in_their_order() -> None:
    """The same commands, between one that stops every Deployment and one that starts them all."""

    def lines(page: str, title: str) -> list[str]:
        text = (PAGES / page).read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0].replace("\\\n", " ")
        return [" ".join(each.split()) for each in re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)]

    here, there = lines("kubernetes.md", "Restore a backup"), lines("control.md", "Restore")
    assert [each for each in here if each in there] == there
    assert len(there) >= 3
    of_all = [each.split() for each in here if each.startswith("kubectl -n openagents scale")]
    deployments = {
        path.name for path in (REPOSITORY / "deploy" / "k8s" / "base").iterdir() if (path / "deployment.yaml").exists()
    }
    assert [set(words[5:-1]) for words in of_all] == [deployments, deployments]
    stop, start = (here.index(" ".join(words)) for words in of_all)
    assert all(stop < here.index(each) < start for each in there)
    assert "projection-stopped.md#making-the-read-models-anew" in (PAGES / "kubernetes.md").read_text("utf-8")


def test_every_secret_that_is_made_is_explained(tmp_path: Path) -> None:
    page = (PAGES / "secrets.md").read_text("utf-8")
    for name, keys in new_secrets("db.example:5432").items():
        of_service = re.sub(r"-(?:control|runtime|projector|khala-gateway)$", "-<service>", name)
        of_role = re.sub(r"-database-.+$", "-database-<role>", name)
        assert any(each in page for each in (name, of_service, of_role))
        assert [key for key in keys if f"`{key}`" not in page] == []


def test_every_action_that_is_audited_is_listed() -> None:
    """People filter the log by these words, which the program does not list."""
    section = (PAGES / "audit.md").read_text("utf-8").partition("These are the actions")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", section)) == {*Action}


def test_prometheus_is_told_the_ports_where_services_serve_metrics() -> None:
    page = (PAGES / "observability.md").read_text("utf-8")
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (job,) = yaml.safe_load(found[1])["scrape_configs"]
    services = project({}, ONE_MACHINE)["services"]
    bound = [_settings_of(name, services[name])["OA_OPS_ADDRESS"] for name in SETTINGS]
    ports = {address.rpartition(":")[2] for address in bound}
    assert {target.rpartition(":")[2] for config in job["static_configs"] for target in config["targets"]} == ports
    assert job["job_name"].startswith("openagents")


def _settings_of(name: str, service: Document) -> dict[str, str]:
    """What stands in the service's own file of settings."""
    return environment_of({**service, "env_file": [f"../k8s/base/{name}/config.env"]})
