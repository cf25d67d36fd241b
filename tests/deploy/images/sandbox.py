"""An image, looked into and started without a container runtime: buildah mounts it, bubblewrap runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("buildah", "mmdebstrap", "bwrap")
"""What it takes to build an image on a bare machine and to start it."""


def missing_tools() -> str:
    """Those that are not here, as words; empty when all are."""
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


@dataclass(frozen=True)
class Image:
    """A mounted image."""

    root: Path
    entrypoint: tuple[str, ...]
    user: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]

    def command(self, *arguments: str, readable: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()) -> list[str]:
        """The command that runs the image's program: read-only, as its user, with no capability at all.

        The environment is that of whoever runs the command, with the image's own over it. The named folders are
        reached under their own names; they must lie below /tmp or /dev.
        """
        uid, _, gid = self.user.partition(":")
        words = [
            shutil.which("bwrap") or "bwrap",
            "--ro-bind",
            str(self.root),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
        ]
        for option, folders in (("--ro-bind", readable), ("--bind", writable)):
            for folder in folders:
                words += [option, str(folder), str(folder)]
        words += ["--unshare-user", "--uid", uid, "--gid", gid, "--unshare-pid", "--cap-drop", "ALL"]
        words += ["--die-with-parent", "--chdir", "/"]
        for name, value in self.environment.items():
            words += ["--setenv", name, value]
        return [*words, *self.entrypoint, *arguments]

    def packages(self) -> dict[str, str]:
        """Python packages that it holds, wherever they lie: name to version."""
        found = [path.name.removesuffix(".dist-info") for path in self.root.rglob("*.dist-info")]
        return {name.lower().replace("_", "-"): version for name, _, version in (one.rpartition("-") for one in found)}

    def code(self) -> set[str]:
        """Our files in it, without byte code and the name of the commit."""
        folder = self.root / "app" / "code"
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "REVISION"
        }

    def without_byte_code(self) -> list[str]:
        """Sources that were not compiled."""
        sources = [path for path in (self.root / "app").rglob("*.py") if "lib2to3" not in path.parts]
        compiled = {path.parent.parent / path.name.partition(".")[0] for path in self.root.rglob("app/**/*.pyc")}
        return [str(path) for path in sources if path.with_suffix("") not in compiled]

    def wrong_modes(self) -> list[str]:
        """Files that its user can't read, or may write."""
        paths = [path for path in (self.root / "app").rglob("*") if not path.is_symlink()]
        return [str(path) for path in paths if path.stat().st_mode & 0o006 != 0o004]


@contextmanager
def mounted(tag: str) -> Iterator[Image]:
    """The image of that name, mounted for as long as the block runs."""
    config = json.loads(_buildah("inspect", "--type", "image", tag))["OCIv1"]["config"]
    container = _buildah("from", "--pull-never", tag)
    try:
        root = Path(_buildah("mount", container))
        environment = dict(line.split("=", 1) for line in config["Env"])
        yield Image(root, tuple(config["Entrypoint"]), config["User"], environment, config["Labels"])
    finally:
        _buildah("rm", container)


def layers(tag: str) -> list[str]:
    """The hashes of the image's layers: of all files in it, with their modes and times."""
    return list(json.loads(_buildah("inspect", "--type", "image", tag))["OCIv1"]["rootfs"]["diff_ids"])


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True).stdout.strip()
