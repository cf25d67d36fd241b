"""The help of every command ends with an example, and every example is a command that `oa` understands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from apps.cli.pages import EXAMPLE, commands_of, examples_of
from apps.cli.program import oa

COMMANDS = dict(commands_of(oa, ("oa",)))
FILES = ("receipt.json", "events.jsonl", "run.oareplay", "audit.jsonl")
"""What examples read; it must be there to be understood."""
_WIDTH = 76
"""An example stays one line where a terminal has 80 columns."""


def problems(path: tuple[str, ...], command: click.Command) -> list[str]:
    """What is wrong with the examples of the command that `path` calls; call it where FILES are."""
    examples = examples_of(command)
    return [f"{' '.join(path)}: {what}" for what in ([] if examples else ["no example"])] + [
        f"{example}: {what}" for example in examples if (what := _problem(path, command, example))
    ]


def _problem(path: tuple[str, ...], command: click.Command, example: str) -> str:
    words = shlex.split(example)
    words = words[: words.index(">")] if ">" in words else words
    if tuple(words[: len(path)]) != path:
        return "calls another command"
    if len(EXAMPLE + example) > _WIDTH:
        return "is too long"
    try:
        command.make_context(path[-1], words[len(path) :])
    except click.ClickException as error:
        return error.format_message()
    return ""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_parse(path: tuple[str, ...]) -> None:
    assert problems(path, COMMANDS[path]) == []


def _groups(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _groups(command, (*path, name))


GROUPS = dict(_groups(oa, ("oa",)))


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_the_help_of_a_group_ends_with_an_example_of_one_of_its_commands(path: tuple[str, ...]) -> None:
    with click.Context(GROUPS[path], info_name=" ".join(path)) as context:
        last = GROUPS[path].get_help(context).splitlines()[-1].strip()
    assert last.startswith(EXAMPLE)
    example = last.removeprefix(EXAMPLE)
    assert tuple(example.split()[: len(path)]) == path
    assert any(example in examples_of(command) for words, command in COMMANDS.items() if words[: len(path)] == path)


@pytest.mark.parametrize(
    ("epilog", "what"),
    [
        ("", "oa run show: no example"),
        ("Example: oa run tail latest", "oa run tail latest: calls another command"),
        ("Example: oa run show", "oa run show: Missing argument 'RUN_ID'."),
        ("Example: oa run show --bogus x", "oa run show --bogus x: No such option '--bogus'."),
        (f"Example: oa run show {'x' * 80}", f"oa run show {'x' * 80}: is too long"),
    ],
)
def test_what_is_no_example_is_found(epilog: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ("oa", "run", "show")
    monkeypatch.setattr(COMMANDS[path], "epilog", epilog)
    assert [found.split("(")[0].strip() for found in problems(path, COMMANDS[path])] == [what]
