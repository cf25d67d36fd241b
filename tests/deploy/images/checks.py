"""What holds of every image, as sentences about what does not."""

from __future__ import annotations

import subprocess

from oa_testing.postgres import Database
from tests.deploy.images.sandbox import Image
from tools.images.build import Release
from tools.images.contents import CHECKOUT, contents
from tools.images.sbom import pins
from tools.images.targets import Target

FOREIGN = {"boto3", "flask", "hypothesis", "moto", "mypy", "pip", "pytest", "ruff", "setuptools", "wheel"}
"""Packages of the workshop: none is in any image, whatever a lock says."""


def defects(image: Image, target: Target, release: Release) -> list[str]:
    """What is wrong with what an image holds and says of itself."""
    locked = pins((CHECKOUT / "requirements" / f"{target.name}.lock").read_text("utf-8"))
    packages, code = image.packages(), {path.as_posix() for path in contents(target)}
    found = [f"{name} belongs to the workshop" for name in sorted(packages.keys() & FOREIGN)]
    if packages != locked:
        found.append(f"packages differ from the lock: {sorted(packages.items() ^ locked.items())}")
    if image.code() != code:
        found.append(f"code differs from what is imported: {sorted(image.code() ^ code)}")
    found += [f"{path} has no byte code" for path in image.without_byte_code()[:3]]
    found += [f"{path} can't be read, or can be written, by its user" for path in image.wrong_modes()[:3]]
    found += [] if image.user == "10001:10001" else [f"it runs as {image.user}"]
    named = "org.opencontainers.image."
    said = image.labels.get(f"{named}version"), image.labels.get(f"{named}revision")
    found += [] if said == (release.version, release.revision) else [f"it says that it is {said}"]
    return found


def has_shell(image: Image) -> bool:
    """Is there any shell in it?"""
    return any((image.root / "usr" / "bin" / name).exists() for name in ("sh", "dash", "bash"))


def may_write(image: Image) -> bool:
    """Can a process of the image write anywhere but in /tmp?"""
    program = "import os, sys; sys.exit(any(os.access(top, os.W_OK) for top in ('/', '/app', '/etc', '/usr', '/var')))"
    command = image.command()
    python = command[: command.index(image.entrypoint[0])]
    done = subprocess.run([*python, image.entrypoint[0], "-c", program], check=False)
    return done.returncode != 0


def migrated(image: Image, target: Target, database: Database) -> dict[str, list[str]]:
    """What the image of migrations says of an empty database: service -> lines, of a first and then of a second run."""
    said = {}
    for service in target.migrations:
        command = image.command(service, f"/app/code/services/{service}/migrations")
        environment = {"PATH": "/usr/bin:/bin", "OA_MIGRATE_DATABASE_URL": database.owner}
        runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=False) for _ in "12"]
        said[service] = [line for run in runs for line in (run.stdout + run.stderr).splitlines()]
    return said


def not_migrated(said: dict[str, list[str]]) -> list[str]:
    """Services whose schema was not made by the first run and found complete by the second."""
    wrong = []
    for service, lines in said.items():
        files = sorted(path.name for path in (CHECKOUT / "services" / service).rglob("migrations/*.sql"))
        if not files or lines != [*(f"applied {name}" for name in files), "up to date"]:
            wrong.append(f"{service}: {lines}")
    return wrong
