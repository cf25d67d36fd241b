"""The locks follow pyproject.toml, and `make` lists what it has."""

import asyncio
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from oa_testing.waiting import eventually
from tests.house.files import REPO
from tools.descriptions import as_text
from tools.pauses import run, stopped_below

PROJECT = "openagents-runtime"
INSTALLED = sorted({path.stem for path in (REPO / "requirements").glob("*.lock")} - {"dev", "bootstrap"})
"""The extras that somebody installs by themselves; each has a lock of its name."""
Extras = Mapping[str, list[str]]


def locked(name: str) -> dict[str, Version]:
    """Package to version, as a lock pins it."""
    text = (REPO / "requirements" / name).read_text("utf-8")
    return {package: Version(version) for package, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M)}


def requirements(extra: str, extras: Extras, base: Iterable[str]) -> set[Requirement]:
    """What an extra asks for, with what it takes over from other extras."""
    found = {Requirement(text) for text in base}
    for text in extras[extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT:
            for other in requirement.extras:
                found |= requirements(other, extras, base)
        else:
            found.add(requirement)
    return found


def unmet(wanted: Iterable[Requirement], pins: Mapping[str, Version]) -> list[str]:
    """Requirements that no pin fulfils, as text, sorted."""
    return sorted(
        str(requirement)
        for requirement in wanted
        if requirement.name not in pins or not requirement.specifier.contains(pins[requirement.name], prereleases=True)
    )


def _project() -> dict[str, object]:
    return cast("dict[str, object]", tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"])


def test_locks_fulfil_pyproject() -> None:
    project = _project()
    extras, base = cast("Extras", project["optional-dependencies"]), cast("list[str]", project["dependencies"])
    assert unmet(requirements("dev", extras, base), locked("dev.lock")) == []
    assert len(INSTALLED) >= 8
    for extra in INSTALLED:
        assert unmet(requirements(extra, extras, base), locked(f"{extra}.lock")) == [], extra
    assert unmet({Requirement("protobuf>=99"), Requirement("gone")}, locked("dev.lock")) == ["gone", "protobuf>=99"]


def test_what_runs_in_production_is_what_was_tested() -> None:
    tested = locked("dev.lock")
    for extra in INSTALLED:
        pins = locked(f"{extra}.lock")
        assert {name: version for name, version in pins.items() if tested.get(name) != version} == {}, extra


def test_production_installs_no_tools() -> None:
    tools = {"betterproto", "buf-bin", "grpcio-tools", "mypy", "pytest", "ruff"}
    assert {extra: found for extra in INSTALLED if (found := locked(f"{extra}.lock").keys() & tools)} == {}


def test_make_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=REPO, capture_output=True, text=True, timeout=30, check=True)
    phony = re.search(r"^\.PHONY: (.+)$", (REPO / "Makefile").read_text("utf-8"), re.M)
    assert phony is not None
    assert set(re.findall(r"^  make ([a-z0-9-]+)", done.stdout, re.M)) == set(phony[1].split())


def _demo_of(folder: Path, *arguments: str) -> list[str]:
    """What `make run` gives to `oa demo`; where that is a command, what it prints."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "oa"
    program.write_text('#!/bin/sh\nwhile [ $# -gt 0 ] && [ "$1" != -- ]; do echo "$1"; shift; done\nshift; "$@"\n')
    program.chmod(0o755)
    command = ["make", "-o", "bootstrap", "run", f"VENV={folder}", *arguments]
    # Nothing of the make above: `make test ARGS="-k name"` runs these tests, too.
    above = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in above}
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_make_run_leaves_a_command_to_the_shell(tmp_path: Path) -> None:
    loop = "for i in 1 2 3; do echo $i; done"
    assert _demo_of(tmp_path, f"CMD={loop}") == ["demo", "1", "2", "3"]
    assert _demo_of(tmp_path, "ONCE=1", """CMD=echo "$(echo 'a  b')" '"$$"' | cat""") == ["demo", "--once", 'a  b "$$"']
    assert _demo_of(tmp_path, "CMD=echo a, b c") == ["demo", "a, b c"]


def test_make_run_uses_the_stack_of_the_checkout_and_not_of_a_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = 'CMD=echo "$OA_HOME"'
    monkeypatch.delenv("OA_HOME", raising=False)
    assert _demo_of(tmp_path, show) == ["demo", ".oa"]
    monkeypatch.setenv("OA_HOME", "elsewhere")
    assert _demo_of(tmp_path, show) == ["demo", "elsewhere"]


def _busy(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BUSY_COMMAND": command}
    return subprocess.run(
        [str(REPO / "tools" / "run_busy.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_busy_run_repeats_what_it_is_given_and_ends_with_the_worst_status() -> None:
    done = _busy("echo", "3", "1", "-k", "one or two")
    assert (done.returncode, done.stdout.count("ARGS=-k one\\ or\\ two\n")) == (0, 3)
    assert done.stdout.count("beside 1 busy loops") == 3
    assert _busy("false", "2", "1").returncode == 1
    assert _busy("echo", "0").returncode == 2


async def test_a_pause_stops_what_runs_below_and_leaves_alone_what_a_test_has_stopped() -> None:
    shell = await asyncio.create_subprocess_exec("sh", "-c", "sleep 600 & sleep 600 & wait")
    below = psutil.Process(shell.pid).children
    try:
        await eventually(lambda: len(below()) == 2)
        running, stopped = below()
        stopped.suspend()
        await eventually(lambda: _is_stopped(stopped))
        with stopped_below(shell.pid):
            await eventually(lambda: _is_stopped(running))
        await eventually(lambda: not _is_stopped(running))
        await eventually(lambda: _is_stopped(stopped))
    finally:
        for one in below():
            one.kill()
        await shell.wait()
    assert run(["sh", "-c", "exit 3"], seed=1) == 3


def _is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_a_comment_of_a_contract_is_text_without_its_line_breaks() -> None:
    assert as_text(" Asks for the end of a\n run.\n\n Asking again changes\n nothing.\n") == (
        "Asks for the end of a run.\n\nAsking again changes nothing."
    )
    assert as_text(" One of:\n - a, which\n   is long\n - b\n") == "One of:\n- a, which is long\n- b"
    assert as_text("") == ""
