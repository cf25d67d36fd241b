"""What no tracked file may hold, and what generated and ordered files must look like."""

import re
from collections.abc import Iterable
from functools import cache

import pytest

from tests.house.files import REPO, SourceFile, tracked

REGISTRIES = re.compile(
    r"(pypi\.|files\.python|registry\.npm|registry\.yarn|static\.crates|proxy\.gol|repo1?\.maven)[a-z.-]*(org|com|io|ang)"
)
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(root|Users|work|home/[a-z][a-z0-9_-]*)/")
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bxox[abprs]-[0-9A-Za-z-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
)
# The brackets keep this line from being what it looks for.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b|share[d]/desig[n]")
GENERATED_MARKS = ("DO NOT EDIT", "Do not edit manually")
MIGRATION = re.compile(r"services/(?P<service>\w+)/migrations/(?P<number>\d{4})_[a-z0-9_]+\.sql")


def holding(pattern: re.Pattern[str], files: Iterable[SourceFile]) -> list[str]:
    """Where the pattern occurs, as `path:line`, without what it found: it may be a secret."""
    return [
        f"{file.path}:{number}"
        for file in files
        for number, line in enumerate(file.text.splitlines(), start=1)
        if pattern.search(line)
    ]


@cache
def _held_by_ours(pattern: re.Pattern[str]) -> list[str]:
    return holding(pattern, [file for file in tracked() if file.is_ours])


def misnumbered(paths: Iterable[str]) -> list[str]:
    """Migrations whose names don't order them as 0001, 0002, … within their service."""
    wrong, last = [], dict[str, int]()
    for path in sorted(paths):
        match = MIGRATION.fullmatch(path)
        if match is None or int(match["number"]) != last.get(match["service"], 0) + 1:
            wrong.append(path)
        if match is not None:
            last[match["service"]] = int(match["number"])
    return wrong


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        # "~" is taken out before use: this file must not hold what it looks for.
        (REGISTRIES, "https://pypi~.org/x", "install it from PyPI"),
        (REGISTRIES, "https://registry~.npmjs.org/x", "an npm registry"),
        (MACHINE_PATHS, "cd /ro~ot/x", "proto/root/x"),
        (MACHINE_PATHS, "'/ho~me/ann/x'", "$HOME/x and /home/"),
        (SECRETS, "-----BEGIN EC PRIVATE ~KEY-----", "-----BEGIN PUBLIC KEY-----"),
        (SECRETS, "ghp_" + "a" * 36, "ghp_short"),
        (SECRETS, ".".join(["eyJ" + "a" * 20, "eyJ" + "b" * 20, "c" * 20]), "eyJhbGciOi"),
        (UNFINISHED, "# TO~DO: later", "todos are a list"),
    ],
    ids=["python index", "npm index", "root path", "home path", "key", "token", "jwt", "unfinished"],
)
def test_no_file_holds_hosts_paths_secrets_or_unfinished_work(pattern: re.Pattern[str], bad: str, good: str) -> None:
    assert holding(pattern, [SourceFile("x", bad.replace("~", ""))]) == ["x:1"], "the rule must bite"
    assert holding(pattern, [SourceFile("x", good)]) == [], "the rule must not bite here"
    assert _held_by_ours(pattern) == []


def test_locks_name_no_host_and_hash_everything() -> None:
    locks = [file for file in tracked() if file.path.startswith("requirements/") and file.path.endswith(".lock")]
    assert {file.path for file in locks} >= {"requirements/dev.lock", "requirements/stack.lock"}
    for file in locks:
        lines = file.text.splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("-")]
        pins = [line for line in lines if not line.startswith("    --hash=sha256:")]
        assert all(re.fullmatch(r"[a-z0-9-]+==\S+( ; .+)? \\", line) for line in pins), file.path


def test_generated_files_say_that_they_are() -> None:
    generated = [file for file in tracked() if file.parts[0] == "gen"]
    assert generated
    assert [file.path for file in generated if not any(mark in file.text[:600] for mark in GENERATED_MARKS)] == []


def test_migrations_are_numbered_without_a_hole() -> None:
    names = [file.path for file in tracked() if "migrations" in file.parts and file.path.endswith(".sql")]
    assert misnumbered(names) == []
    good = ["services/a/migrations/0001_x.sql", "services/a/migrations/0002_y.sql", "services/b/migrations/0001_x.sql"]
    assert misnumbered(good) == []
    assert misnumbered(["services/a/migrations/0002_y.sql"]) == ["services/a/migrations/0002_y.sql"]
    twice = ["services/a/migrations/0001_x.sql", "services/a/migrations/0001_y.sql"]
    assert misnumbered(twice) == ["services/a/migrations/0001_y.sql"]
    assert misnumbered(["services/a/migrations/add_x.sql"]) == ["services/a/migrations/add_x.sql"]


def test_lines_end_plainly() -> None:
    ours = [file for file in tracked() if file.is_ours and file.text]
    assert [file.path for file in ours if "\r" in file.text or not file.text.endswith("\n")] == []


def test_every_test_room_is_a_package_below_packages() -> None:
    """Otherwise its modules are called `tests.…`, and which `tests` is meant depends on what was imported first."""
    rooms = {file.path.rpartition("/tests/")[0] for file in tracked() if "/tests/" in file.path and file.is_test}
    roots = {"libs", "services", "apps", "tests", ""}
    missing = [
        f"{folder}/__init__.py"
        for room in sorted(rooms - roots)
        for folder in (room, f"{room}/tests")
        if not (REPO / folder / "__init__.py").exists()
    ]
    assert missing == []
