"""The last step of the base makes the same root wherever the checkout lies, and whoever builds it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from tools.images.base import HOOK, hook_option

_DPKG_DEB = """\
#!/bin/sh
echo libc6
"""


def test_the_hook_runs_from_any_folder_and_leaves_what_every_user_may_enter(tmp_path: Path) -> None:
    hook = tmp_path / "check 'out'" / HOOK.name
    hook.parent.mkdir()
    shutil.copy(HOOK, hook)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dpkg-deb").write_text(_DPKG_DEB)
    (tmp_path / "bin" / "dpkg-deb").chmod(0o755)
    root = tmp_path / "root"
    for folder in ("var/cache/apt/archives", "usr/bin", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "var/cache/apt/archives/one.deb").touch()
    command = ["sh", "-c", hook_option(hook).partition("=")[2], "exec", str(root)]
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(command, env=env, umask=0o077, check=True)
    made = ("app", "etc/ssl/certs", "var/lib/dpkg/status.d")
    assert {name: stat.S_IMODE((root / name).stat().st_mode) for name in made} == dict.fromkeys(made, 0o755)
    assert (root / "var/lib/dpkg/status.d/libc6").stat().st_mode & 0o044 == 0o044
