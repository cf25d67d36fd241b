"""A web shell in the cluster: what its image holds gets into the pod as the release that control serves."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from oa_platform.config.loading import load
from services.control.edge_config import WebSettings
from services.control.tests.web import PAGE, built_shell
from services.control.web.app import Releases
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import (
    NEWEST,
    NO_RENDERER,
    Document,
    assert_restricted,
    containers_of,
    name_of,
    of_kind,
    pod_of,
    render,
    renderer,
)
from tests.house.files import REPO

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)


@pytest.fixture(scope="module")
def with_web() -> tuple[Document, ...]:
    """Staging with a web shell."""
    return render(REPO / "tests" / "deploy" / "with_web")


def _control(documents: tuple[Document, ...]) -> Document:
    (found,) = (one for one in documents if one["kind"] == "Deployment" and name_of(one) == "control")
    return found


def _web_settings(documents: tuple[Document, ...]) -> WebSettings:
    """What control's own ConfigMap says of the shell."""
    (data,) = (one["data"] for one in documents if one["kind"] == "ConfigMap" and name_of(one).startswith("control-"))
    return load(WebSettings, {name: value for name, value in data.items() if name.startswith(("OA_WEB", "OA_LEGACY"))})


@pytest.mark.parametrize("version", ["1.29", *NEWEST])
def test_kubernetes_takes_control_with_a_shell(with_web: tuple[Document, ...], version: str) -> None:
    taken_by_kubernetes(_control(with_web), version)


def test_the_pod_stays_restricted_and_control_can_not_change_the_shell(with_web: tuple[Document, ...]) -> None:
    control = _control(with_web)
    assert_restricted(control)
    copying, serving = containers_of(control)
    assert copying["image"] == "registry.example/web-shell:5f3a91c2"
    (before,) = (one for one in of_kind("staging", "Deployment") if name_of(one) == "control")
    assert serving["image"] == containers_of(before)[0]["image"]
    mounts = {mount["name"]: mount for one in (copying, serving) for mount in one["volumeMounts"]}
    assert mounts["web"]["readOnly"] is True
    assert [mount["name"] for mount in copying["volumeMounts"]] == ["web"], "the image sees no secret"
    kept = {volume["name"] for volume in pod_of(before)["spec"]["volumes"]}
    assert {volume["name"] for volume in pod_of(control)["spec"]["volumes"]} == kept | {"web"}


async def test_what_the_image_holds_is_what_control_serves(with_web: tuple[Document, ...], tmp_path: Path) -> None:
    """The pod's command is carried out, with folders of this machine in the place of the image's and the volume."""
    copying = containers_of(_control(with_web))[0]
    volume, image = tmp_path / "volume", tmp_path / "image"
    volume.mkdir()
    built_shell(image / "builds" / "5f3a91c2")
    (image / "current").symlink_to(image / "builds" / "5f3a91c2")
    (mount,) = (each["mountPath"] for each in copying["volumeMounts"])
    places = {"/web/.": f"{image}/.", f"{mount}/": f"{volume}/"}
    command: list[str] = [places.get(word, word) for word in copying["command"]]
    assert set(places) <= set(copying["command"])
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    root = _web_settings(with_web).root
    assert root is not None
    releases = Releases(volume / root.relative_to(mount))
    await releases.verify()
    await releases.check()
    assert (releases.present.folder / "index.html").read_bytes() == PAGE
