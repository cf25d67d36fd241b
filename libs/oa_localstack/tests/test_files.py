"""Files are written as a whole, or nothing is left of the attempt."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from oa_localstack.files import bound, replace


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    replace(kept, b"first")
    replace(kept, b"second")
    assert kept.read_bytes() == b"second"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == [kept]


def test_a_failure_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        replace(folder, b"x")
    assert [*tmp_path.iterdir()] == [folder]


def test_a_log_that_is_too_large_moves_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        for text in (b"first ", b"second ", b"third "):
            writer.write(text)
            bound(log, 5)
            writer.write(b"on")
    assert (tmp_path / "x.log.1").read_bytes() == b"onthird "
    assert log.read_bytes() == b"on"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1"]


def test_a_log_that_is_not_too_large_or_not_there_stays(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    bound(log, 5)
    log.write_bytes(b"12345")
    bound(log, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]


def test_a_log_moves_aside_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    log = tmp_path / "x.log"
    log.write_bytes(b"123456")
    with pytest.raises(OSError, match="No space left"):
        bound(log, 5)
    assert log.read_bytes() == b""
