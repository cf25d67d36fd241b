"""What builds an image is asked in its own words, and is taken only if it works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tools.images import engine
from tools.images.engine import Build

BUILD = Build(Path("/c"), Path("/c/F"), "t:1", "runtime", {"BASE": "b"}, {"l": "v"}, {"pip.conf": Path("/p")}, 7)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _program(folder: Path, name: str, status: int) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)


def test_the_first_engine_that_works_is_taken(programs: Path) -> None:
    assert engine.find_engine() is None
    _program(programs, "docker", 0)
    assert engine.find_engine() == "docker"
    _program(programs, "buildah", 1)
    assert engine.find_engine() == "docker"
    _program(programs, "buildah", 0)
    assert engine.find_engine() == "buildah"


def test_each_engine_gets_target_arguments_and_secrets() -> None:
    common = "--target runtime --build-arg BASE=b --label l=v --secret id=pip.conf,src=/p /c"
    assert " ".join(engine.command("docker", BUILD)) == f"docker build --tag t:1 --file /c/F {common}"
    own = "--layers --isolation chroot --timestamp 7"
    assert "--no-cache" in engine.command("docker", replace(BUILD, cached=False))
    for name in ("buildah", "podman"):
        assert " ".join(engine.command(name, BUILD)) == f"{name} build --tag t:1 --file /c/F {own} {common}"
