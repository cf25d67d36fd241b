"""Artifacts as files: whole or not at all, and nothing left over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_client.cpython.artifact_files import artifact_file_lines, scratch, staging, write_artifact


def lines_that_fail() -> Iterator[bytes]:
    yield b"new\n"
    raise OSError("no more")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "run.replay"
    file.write_bytes(b"old, and longer than what comes\n")
    assert write_artifact(file, [b"one\n", b"two\n"]) == 8
    assert list(artifact_file_lines(file)) == [b"one\n", b"two\n"]
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "run.replay"
    file.write_bytes(b"old\n")
    with pytest.raises(OSError, match="no more"):
        write_artifact(file, lines_that_fail())
    assert (list(tmp_path.iterdir()), file.read_bytes()) == ([file], b"old\n")


def test_a_staged_file_is_removed_unless_it_was_moved_away(tmp_path: Path) -> None:
    with staging(tmp_path / "file") as (path, opened):
        opened.write(b"x")
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []
    with staging(tmp_path / "file") as (path, _):
        path.replace(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_scratch_file_is_written_read_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as opened:
        opened.write(b"x")
        opened.seek(0)
        assert opened.read() == b"x"
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "none" / "x", tmp_path / "folder"):
        with pytest.raises(OSError, match=re.escape(str(file))) as refused:
            write_artifact(file, [b"one\n"])
        assert refused.value.filename == str(file)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
