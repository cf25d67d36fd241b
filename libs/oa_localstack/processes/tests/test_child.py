"""A child runs as told, and dies with its parent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from oa_localstack.processes.account import postgres_account
from oa_localstack.processes.child import spawn
from oa_testing.suite.skips import as_root
from oa_testing.waiting import PATIENCE_S


def _output(tmp_path: Path, *argv: str, as_postgres: bool = False) -> tuple[int, str]:
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        account = postgres_account() if as_postgres else None
        process = spawn(argv, env={"GREETING": "hello"}, log=log, account=account)
    return process.wait(PATIENCE_S), log_path.read_text()


def test_it_runs_with_the_given_environment_and_arguments(tmp_path: Path) -> None:
    assert _output(tmp_path, "/bin/sh", "-c", 'echo "$GREETING $1"; exit 5', "sh", "to you") == (5, "hello to you\n")


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    status, said = _output(tmp_path, "/no/such/program")

    assert status == 127
    assert said == "/no/such/program can't be started: No such file or directory\n"


@as_root
def test_it_becomes_the_user_with_no_way_back(tmp_path: Path) -> None:
    account = postgres_account()
    status, said = _output(tmp_path, "/bin/sh", "-c", "id -u; id -g; id -G", as_postgres=True)

    assert status == 0
    assert said.split() == [str(account.uid), str(account.gid), str(account.gid)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word for it is Linux's")
def test_it_is_a_session_of_its_own(tmp_path: Path) -> None:
    _, said = _output(tmp_path, "/bin/sh", "-c", "cut -d' ' -f1,6 /proc/$$/stat")
    pid, session = said.split()

    assert pid == session
