"""The data that stacks begin with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oa_testing.cluster import Cluster


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where clusters were made; nothing is there."""
    folders: list[Path] = []

    def make(directory: Path) -> Cluster:
        folders.append(directory)
        return Cluster(directory, f"password {len(folders)}")

    monkeypatch.setattr(Cluster, "make", make)
    return folders


def test_of_several_workers_one_makes_it_and_all_have_it(tmp_path: Path, made: list[Path]) -> None:
    with ThreadPoolExecutor(4) as workers:
        theirs = list(workers.map(lambda _: Cluster.shared(tmp_path / "cluster"), range(4)))
    assert made == [tmp_path / "cluster"]
    assert {one.superuser_password for one in theirs} == {"password 1"}
    assert len({one.data for one in theirs}) == 1


def test_one_that_was_not_finished_is_made_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(directory: Path) -> Cluster:
        (directory / "postgres").mkdir()
        raise ChildProcessError

    monkeypatch.setattr(Cluster, "make", killed)
    with pytest.raises(ChildProcessError):
        Cluster.shared(tmp_path / "cluster")

    def whole(directory: Path) -> Cluster:
        (directory / "postgres").mkdir()
        return Cluster(directory, "whole")

    monkeypatch.setattr(Cluster, "make", whole)
    assert Cluster.shared(tmp_path / "cluster").superuser_password == "whole"
