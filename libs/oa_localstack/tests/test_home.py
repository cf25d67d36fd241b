"""Which stack is meant in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oa_localstack.settings import load_settings, nearest_home


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stack; the working folder is two below it."""
    (tmp_path / ".oa").mkdir()
    (tmp_path / "src" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "src" / "deep")
    return tmp_path


def test_the_stack_is_found_upwards_from_the_working_folder(project: Path) -> None:
    assert nearest_home() == project / ".oa"
    (project / "src" / ".oa").mkdir()
    assert nearest_home() == project / "src" / ".oa", "the nearest one"
    Path(".oa").mkdir()
    assert nearest_home() == Path(".oa"), "the folder's own comes first"


def test_without_a_stack_above_it_would_be_in_the_working_folder(project: Path) -> None:
    (project / ".oa").rmdir()
    (project / ".oa").touch()  # no folder
    assert nearest_home() == Path(".oa")


def test_a_folder_of_somebody_else_is_not_taken_from_above(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make a folder in /tmp, with a state that sends a person's sign-in elsewhere."""
    owner = (project / ".oa").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert nearest_home() == Path(".oa")
    monkeypatch.chdir(project)
    assert nearest_home() == Path(".oa"), "the folder's own"


def test_a_working_folder_that_was_removed_is_refused_where_it_is_needed(project: Path) -> None:
    (project / "src" / "deep").rmdir()
    assert nearest_home() == Path(".oa")


def test_the_stack_starts_there_if_no_other_is_named(project: Path) -> None:
    assert load_settings({}).home == project / ".oa"
    assert load_settings({"OA_HOME": "another"}).home == Path("another")
