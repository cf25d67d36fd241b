"""The engine that builds an image from a Containerfile: buildah, podman or docker, the first of them that works."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENGINES = ("buildah", "podman", "docker")


@dataclass(frozen=True)
class Build:
    """One image to build."""

    context: Path
    file: Path
    tag: str
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the image states about itself. Not in the file: a label made from an argument there comes from the cache."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Files that steps may read while they run, by name. No layer contains them."""
    epoch_s: int = 0
    """The time that everything in the image has."""
    cached: bool = True
    """Whether steps that were done before may come from the cache."""


def find_engine() -> str | None:
    """The first engine that works. A client without its server does not work."""
    return next((engine for engine in ENGINES if shutil.which(engine) and _works(engine)), None)


def _works(engine: str) -> bool:
    return subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0


def command(engine: str, build: Build) -> list[str]:
    """The command line that builds the image."""
    words = [engine, "build", "--tag", build.tag, "--file", str(build.file)]
    if engine != "docker":
        # chroot: a build then needs no container runtime, and no rights that a build machine may withhold.
        words += ["--layers", "--isolation", "chroot", "--timestamp", str(build.epoch_s)]
        ignored = build.file.with_name(f"{build.file.name}.dockerignore")
        words += ["--ignorefile", str(ignored)] if ignored.exists() else []
    words += ["--target", build.target] if build.target else []
    words += [] if build.cached else ["--no-cache"]
    for name, value in build.arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    for name, value in build.labels.items():
        words += ["--label", f"{name}={value}"]
    for name, path in build.secrets.items():
        words += ["--secret", f"id={name},src={path}"]
    return [*words, str(build.context)]


def run(engine: str, build: Build) -> None:
    """Build the image. Raises subprocess.CalledProcessError."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(build.epoch_s)}  # docker takes the time from it
    subprocess.run(command(engine, build), check=True, env=environment)


def has_image(engine: str, tag: str) -> bool:
    """Whether there is an image with this name."""
    return subprocess.run([*_INSPECT[engine], tag], capture_output=True, check=False).returncode == 0


_INSPECT = {
    "buildah": ("buildah", "inspect", "--type", "image"),
    "podman": ("podman", "image", "inspect"),
    "docker": ("docker", "image", "inspect"),
}
