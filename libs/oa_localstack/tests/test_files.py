"""Files are written as a whole, or nothing is left of the attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from oa_localstack.files import replace


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
