"""Build every image, look into each, and run the whole system from them: `python -m tests.deploy.images`.

Exit status 0 when everything held, 1 when something did not, 2 when this machine lacks a tool.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from oa_testing.postgres import Databases, SessionServer, scratch_directory
from tests.deploy.images.checks import defects, has_shell, may_write, migrated, not_migrated
from tests.deploy.images.sandbox import Image, layers, missing_tools, mounted
from tests.deploy.images.whole import EXPECTED, run_once
from tools.images.build import Release, build
from tools.images.targets import TARGETS


def main() -> int:
    """Do it, and say per image what held."""
    if missing := missing_tools():
        sys.stderr.write(
            f"images: {missing} is not here; install it (Debian packages: buildah, mmdebstrap, bubblewrap)\n"
        )
        return 2
    release = Release.of_checkout()
    tags = dict(zip(TARGETS, build(TARGETS.values(), release), strict=True))
    with ExitStack() as stack:
        images = {name: stack.enter_context(mounted(tag)) for name, tag in tags.items()}
        wrong = _look(images, release)
        wrong += _migrate(images["migrate"])
        wrong += _run(images)
    wrong += _again(tags["migrate"], release)
    sys.stdout.write("".join(f"{line}\n" for line in wrong) or "every image held\n")
    return 1 if wrong else 0


def _look(images: Mapping[str, Image], release: Release) -> list[str]:
    wrong = []
    for name, image in images.items():
        found = defects(image, TARGETS[name], release)
        found += ["it has a shell"] if has_shell(image) else []
        found += ["it can write outside of /tmp"] if may_write(image) else []
        sys.stdout.write(f"{name}: {len(image.packages())} packages, {len(image.code())} files of ours\n")
        wrong += [f"{name}: {line}" for line in found]
    return wrong


def _migrate(image: Image) -> list[str]:
    server = SessionServer()
    try:
        databases = Databases(server.address, "images")
        said = migrated(image, TARGETS["migrate"], databases.create(()))
        databases.close()
    finally:
        server.stop()
    return [f"migrate: {line}" for line in not_migrated(said)]


def _again(tag: str, release: Release) -> list[str]:
    """Every step done, and then done once more, makes the same files. (What a cache has is as old as its commit.)"""
    made = []
    for _ in "12":
        build([TARGETS["migrate"]], release, cached=False)
        made.append(layers(tag))
    return [] if made[0] == made[1] else ["migrate: a second build of the same made other files"]


def _run(images: Mapping[str, Image]) -> list[str]:
    folder = scratch_directory()
    try:
        written = asyncio.run(run_once(images, folder))
    finally:
        shutil.rmtree(folder)
    return [] if written == EXPECTED else [f"worker: the command wrote {written!r}"]


if __name__ == "__main__":
    sys.exit(main())
