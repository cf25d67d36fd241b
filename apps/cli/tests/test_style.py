"""One style everywhere: of flags, and of the names in what `--json` writes."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import apps.cli
import oa_client
from apps.cli.commands.runs.run_options import run_options
from apps.cli.pages import commands_of
from apps.cli.program import oa
from apps.cli.tests.hostile import OUR_NAME
from oa_runlog.events import ExecSpec, RunSpec

COMMANDS = [(" ".join(path[1:]), command) for path, command in commands_of(oa, ("oa",))]
OPTIONS = [
    (name, option) for name, command in COMMANDS for option in command.params if isinstance(option, click.Option)
]
SHORT = {"--tty": "-t", "--output": "-o"}
"""The flags that have a letter, too."""
UNITS = re.compile("-(ms|s|m|h|seconds|minutes|days)$")
TWO_MEANINGS = {"--adapter", "--overlap", "--pin"}
"""Each is the usual word for two things, which no command has both of."""
SOURCES = [
    path
    for package in (apps.cli, oa_client)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
    if "tests" not in path.parts
]


def test_flags_are_whole_words_with_hyphens_and_few_have_a_letter() -> None:
    for command, option in OPTIONS:
        long, *others = sorted(option.opts, key=lambda name: not name.startswith("--"))
        shorts = [name for name in others if not name.startswith("--")]
        assert re.fullmatch("--[a-z]+(-[a-z]+)*", long), f"{command} {long}"
        assert option.opts[0] == long, f"{command} {long}: the letter comes second"
        assert shorts == ([SHORT[long]] if long in SHORT else []), f"{command} {long}"


def test_what_is_a_time_takes_its_unit_with_its_value() -> None:
    shown = [(command, option.opts[0]) for command, option in OPTIONS if not option.hidden]
    assert [(command, flag) for command, flag in shown if UNITS.search(flag)] == []


def test_one_flag_takes_one_kind_of_value() -> None:
    kinds: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for _, option in OPTIONS:
        kinds[option.opts[0]].add((option.type.name, option.is_flag))
    assert {flag for flag, found in kinds.items() if len(found) > 1} == TWO_MEANINGS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_is_said_as_json_has_names_as_the_contracts_have_in_json(path: Path) -> None:
    names = {
        key.value
        for said in _said(ast.parse(path.read_text("utf-8")))
        for one in ast.walk(said)
        if isinstance(one, ast.Dict)
        for key in one.keys
        if isinstance(key, ast.Constant)
    }
    assert {name for name in names if not OUR_NAME.fullmatch(str(name))} == set()


def _said(tree: ast.AST) -> Iterator[ast.AST]:
    """What is given to `Output.document`, directly or by way of something called `document`."""
    for one in ast.walk(tree):
        if isinstance(one, ast.Call) and _name_of(one.func) == "document":
            yield from one.args
        if isinstance(one, ast.Assign) and "document" in map(_name_of, one.targets):
            yield one.value
        if isinstance(one, ast.FunctionDef) and one.name.strip("_") == "document":
            yield one


def _name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Subscript):
        return _name_of(node.value)
    found: Any = getattr(node, "attr", "") or getattr(node, "id", "")
    return str(found)


@pytest.mark.parametrize(("flag", "value"), [("--timeout", "90s"), ("--timeout-ms", "90000")])
def test_the_flag_of_before_means_the_same(flag: str, value: str) -> None:
    specs: list[RunSpec] = []

    @click.command()
    @run_options
    def start(spec: RunSpec) -> None:
        specs.append(spec)

    start.main([flag, value, "--", "true"], standalone_mode=False)
    assert [spec.input for spec in specs] == [ExecSpec(("true",), timeout_ms=90_000)]
