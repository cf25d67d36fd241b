"""What the page "Deploy it" gives to docker and kubectl, where there is neither a registry nor a cluster."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from oa_testing.waiting import PATIENCE_S
from openagents import Worker
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import NEWEST, Document, containers_of, name_of, pod_of
from tests.e2e.pages import TUTORIAL, blocks_of, keep

PAGE = "deploy-it.md"
HANDED_OVER_S = 20
"""An agent whose run is given up has 10 s to end (`AgentLimits.stop_timeout_ms`), and its worker says goodbye."""
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def file_of(name: str) -> str:
    (text,) = (block.text for block in blocks_of(PAGE) if block.file == name)
    return text


def deployment() -> Document:
    found: Document = yaml.safe_load(file_of("worker.yaml"))
    return found


def commands(program: str) -> list[list[str]]:
    """The words of each command of a program on the page."""
    shell = (line for block in blocks_of(PAGE) if block.language == "sh" for line in block.text.splitlines())
    return [shlex.split(line) for line in shell if line.startswith(f"{program} ")]


def instructions() -> list[tuple[str, str]]:
    lines = file_of("Containerfile").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def offline(folder: Path, *words: str) -> Document:
    """What kubectl makes of a command without a cluster."""
    done = subprocess.run([*words, "-o", "yaml"], cwd=folder, capture_output=True, check=True, timeout=PATIENCE_S)
    found: Document = yaml.safe_load(done.stdout)
    return found


def _package_of(install: str) -> tuple[str, set[str]]:
    """The package that a `pip install` names last, and its extras."""
    name, _, extras = shlex.split(install)[-1].partition("[")
    return name, set(extras.removesuffix("]").split(","))


def test_the_image_runs_what_the_page_has_tried() -> None:
    said = dict(instructions())
    assert json.loads(said["CMD"]) == ["python", "worker.py"]
    assert any("python worker.py 2> worker.log &" in block.text for block in blocks_of(PAGE))
    *files, _ = said["COPY"].split()
    assert set(files) <= {block.file for block in blocks_of(PAGE)}
    (first,) = (block.text for block in blocks_of("write-a-worker.md") if block.text.startswith("pip install "))
    image, tried = (_package_of(text) for text in (said["RUN"], first))
    assert image == ("openagents-runtime", {"sdk"}), "no command line in an image"
    assert (tried[0], image[1] <= tried[1]) == (image[0], True)
    built = [words[words.index("-t") + 1] for words in commands("docker") if words[1] == "build"]
    assert built == [words[2] for words in commands("docker") if words[1] == "push"]
    (set_image,) = (words for words in commands("kubectl") if words[1:3] == ["set", "image"])
    (container,) = containers_of(deployment())
    assert [container["image"], set_image[-1].removeprefix(f"{container['name']}=")] == built


def test_a_pod_is_restricted_and_is_told_in_time() -> None:
    spec = pod_of(deployment())["spec"]
    (container,) = spec["containers"]
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert dict(instructions())["USER"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    env = {entry["name"]: entry.get("value", "oak_from_a_secret") for entry in container["env"]}
    assert int(env["OA_WORKER_DRAIN_S"]) + HANDED_OVER_S <= spec["terminationGracePeriodSeconds"]
    Worker.from_env(env=env)
    explained = re.findall(r"^\| `(OA_\w+)` \|", (TUTORIAL / PAGE).read_text("utf-8"), re.M)
    assert env.keys() <= set(explained)


@needs_kubectl
@pytest.mark.parametrize("version", NEWEST)
def test_kubernetes_takes_what_the_page_makes(tmp_path: Path, version: str) -> None:
    keep(blocks_of(PAGE), tmp_path)
    for name in ("api-key", "ca.crt"):
        (tmp_path / name).write_text("x", "utf-8")
    secret, config = (
        offline(tmp_path, *words, "--dry-run=client") for words in commands("kubectl") if words[1] == "create"
    )
    (patch,) = (words for words in commands("kubectl") if words[1] == "patch")
    own = offline(tmp_path, *patch[:2], "--local", "-f", "worker.yaml", *patch[4:])
    for document in (deployment(), own, secret, config):
        taken_by_kubernetes(document, version)
    assert patch[2:4] == [own["kind"].lower(), name_of(own)]
    (container,) = containers_of(own)
    env = {entry["name"]: entry for entry in container["env"]}
    wanted = env["OA_API_KEY"]["valueFrom"]["secretKeyRef"]
    assert (wanted["name"], [wanted["key"]]) == (name_of(secret), [*secret["data"]])
    assert {"OA_CONTROL_URL", "OA_WORKER_DRAIN_S"} < env.keys(), "a patch adds"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert env["OA_CA_FILE"]["value"] in [f"{mounts['site']}/{file}" for file in config["data"]]
    volumes: dict[str, Any] = {volume["name"]: volume for volume in pod_of(own)["spec"]["volumes"]}
    assert volumes["site"]["configMap"]["name"] == name_of(config)


@needs_kubectl
def test_kubectl_knows_the_commands_of_the_page() -> None:
    found = commands("kubectl")
    assert len(found) >= 8
    for words in found:  # options are read before help is shown
        done = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert (done.returncode, bool(re.search(r"^Usage:\n +kubectl \w(?!.*SUBCOMMAND)", done.stdout, re.M))) == (
            0,
            True,
        ), words
    selected = {words[words.index("-l") + 1] for words in found if "-l" in words}
    labels = pod_of(deployment())["metadata"]["labels"]
    assert selected == {f"{name}={value}" for name, value in labels.items()}
