"""The base of images if none is named: CPython from Debian's packages, made with mmdebstrap.

Two root file systems are made once and kept outside the checkout: `base`, which has CPython and its libraries but
neither a shell nor a package manager, and `builder`, a small Debian in which packages are installed and code is
compiled.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.images.contents import CHECKOUT

SUITE = "bookworm"
PYTHON = "python3.11"
"""The CPython of `SUITE`."""
HOOK = CHECKOUT / "deploy" / "images" / "base_hook.sh"


def hook_option(hook: Path) -> str:
    """The option with which mmdebstrap runs `hook` by a shell, with the folder of the root as its argument."""
    return f'--extract-hook={shlex.quote(str(hook))} "$1"'


_MERGED_USR = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
_RECIPES = {
    # When a recipe changes, everything made from it is made again. Wheels bring their libraries, except libstdc++.
    "base": ("--variant=extract", f"--include={PYTHON},libstdc++6,tzdata", _MERGED_USR, hook_option(HOOK)),
    "builder": ("--variant=minbase", f"--include={PYTHON}-venv,python3,ca-certificates"),
}


@dataclass(frozen=True)
class Root:
    """A root file system: an archive, and a folder from which an engine makes an image of it."""

    name: str
    folder: Path

    @property
    def archive(self) -> Path:
        """The files."""
        return self.folder / "root.tar"

    @property
    def tag(self) -> str:
        """The image's name; it depends on the recipe."""
        return f"localhost/openagents/{self.name}:{self.folder.name}"

    def packages(self) -> Iterator[dict[str, str]]:
        """The fields of each Debian package in it, by name."""
        with tarfile.open(self.archive) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if "/var/lib/dpkg/status.d/" in member.name and member.isfile():
                    text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
                    yield dict(line.split(": ", 1) for line in text.splitlines())


def cache_folder() -> Path:
    """The folder in which root file systems are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openagents" / "images"


def root(name: str, *, fresh: bool = False) -> Root:
    """The root file system `base` or `builder`; made if it does not exist yet, or if `fresh`.

    Raises subprocess.CalledProcessError when it can't be made.
    """
    recipe = (*_RECIPES[name], SUITE)
    steps = HOOK.read_text("utf-8") if name == "base" else ""
    made = Root(name, cache_folder() / name / _digest(*recipe, steps))
    if fresh or not made.archive.exists():
        made.folder.mkdir(parents=True, exist_ok=True)
        part = made.folder / f"root.{os.getpid()}.tar"
        command = ["mmdebstrap", "--quiet", "--skip=output/dev", *recipe[:-1], SUITE, str(part)]
        try:
            subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
            _add_dev(part)
            part.replace(made.archive)
        finally:
            part.unlink(missing_ok=True)
        (made.folder / "Containerfile").write_text("FROM scratch\nADD root.tar /\n", "utf-8")
    return made


def _add_dev(archive: Path) -> None:
    """Add an empty folder to mount devices on: unpacking devices takes rights that a build may not have."""
    with tarfile.open(archive, "a") as files:
        folder = tarfile.TarInfo("./dev")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        files.addfile(folder)


def missing_tools() -> list[str]:
    """The tools that making a base needs and this machine lacks."""
    return [tool for tool in ("mmdebstrap", "dpkg-deb") if shutil.which(tool) is None]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).replace(str(CHECKOUT), "").encode()).hexdigest()[:12]
