"""Build images: the base if none is named, each target of the Containerfile, and its bill of materials."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.images import base, engine, sbom
from tools.images.contents import CHECKOUT
from tools.images.targets import Target

CONTAINERFILE = CHECKOUT / "deploy" / "images" / "Containerfile"
RESULTS = CHECKOUT / "build" / "images"
"""Bills of materials."""
REPOSITORY = "localhost/openagents"


class NotBuilt(Exception):
    """Images can't be built here; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Release:
    """What an image states about itself."""

    version: str
    revision: str
    epoch_s: int
    """The time of the commit."""

    @staticmethod
    def of_checkout() -> Release:
        """The release of this checkout. The revision of a tree with changes says so; a tree without git has none."""
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
        revision, _, time_s = _git("log", "-1", "--format=%H %ct").partition(" ")
        changed = "-changed" if _git("status", "--porcelain") else ""
        return Release(project["version"], f"{revision or 'unknown'}{changed}", int(time_s or 0))


def tag_of(target: Target, release: Release) -> str:
    """The image's name."""
    return f"{REPOSITORY}/{target.name}:{release.version}"


def build(targets: Iterable[Target], release: Release, *, fresh: bool = False, cached: bool = True) -> list[str]:
    """Build these images and return their names. `fresh`: on a new base; not `cached`: repeat every step.

    Raises NotBuilt, subprocess.CalledProcessError.
    """
    tool = engine.find_engine()
    if tool is None:
        raise NotBuilt(f"none of {', '.join(engine.ENGINES)} works here; install one (Debian: buildah)")
    roots = _bases(tool, fresh)
    debian = [] if os.environ.get("BASE") else list(base.root("base").packages())
    return [_build(tool, target, release, roots, debian, cached) for target in targets]


def _build(
    tool: str, target: Target, release: Release, roots: Mapping[str, str], debian: list[dict[str, str]], cached: bool
) -> str:
    tag = tag_of(target, release)
    said = {"title": f"openagents-{target.name}", "version": release.version, "revision": release.revision}
    labels = {f"org.opencontainers.image.{name}": value for name, value in said.items()}
    arguments = {**roots, "REVISION": release.revision}
    secrets, epoch_s = _pip_secrets(), release.epoch_s
    work = engine.Build(CHECKOUT, CONTAINERFILE, tag, target.name, arguments, labels, secrets, epoch_s, cached)
    engine.run(tool, work)
    lock = (CHECKOUT / "requirements" / f"{target.name}.lock").read_text("utf-8")
    document = sbom.bill(target.name, release.version, release.revision, lock, debian, release.epoch_s)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{target.name}.cdx.json").write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return tag


def _bases(tool: str, fresh: bool) -> dict[str, str]:
    """The build arguments that name the base of images: those that are set, or our own."""
    given = {name: value for name in ("BASE", "BUILDER", "WORKER_BASE") if (value := os.environ.get(name))}
    if "BASE" in given:
        return given
    if missing := base.missing_tools():
        raise NotBuilt(f"{', '.join(missing)} is not here; install it (Debian: mmdebstrap), or name a base in BASE")
    for argument, name in (("BASE", "base"), ("BUILDER", "builder")):
        root = base.root(name, fresh=fresh)
        if fresh or not engine.has_image(tool, root.tag):
            engine.run(tool, engine.Build(root.folder, root.folder / "Containerfile", root.tag))
        given.setdefault(argument, root.tag)
    return given


def _pip_secrets() -> dict[str, Path]:
    """The files that tell pip on this machine where packages come from, for the steps that install them."""
    variables = {"pip.conf": "PIP_CONFIG_FILE", "certificates": "PIP_CERT"}
    return {name: Path(value) for name, variable in variables.items() if (value := os.environ.get(variable))}


def _git(*arguments: str) -> str:
    command = ["git", "-c", f"safe.directory={CHECKOUT}", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
