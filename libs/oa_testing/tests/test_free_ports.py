"""A port that a test means to use is not another test process's in the meantime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oa_testing import postgres
from oa_testing.postgres import free_port
from oa_testing.suite.skips import as_root
from oa_testing.temporary import SHARED

_NOBODY = 65534


def _python(program: str, user: int) -> subprocess.Popen[str]:
    """It becomes the user after its imports: the interpreter may be where only root can read."""
    begin = f"import os; from oa_testing import postgres; os.getuid() == {user} or os.setuid({user})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-c", f"{begin}; {program}"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def _other_process(user: int) -> Iterator[int]:
    """Another process that got a port and does not listen there yet."""
    with _python("print(postgres.free_port(), flush=True); input()", user) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_what_another_process_got_is_given_to_nobody_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with _other_process(os.getuid()) as port:
        monkeypatch.setattr(postgres, "_TEST_PORTS", range(port, port + 1))
        with pytest.raises(AssertionError, match="no free port"):
            free_port()

    assert free_port() == port


def test_what_this_process_got_is_not_given_again_until_it_has_got_many(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [free_port() for _ in range(3)]
    monkeypatch.setattr(postgres, "_KEPT_PORTS", 2)
    reservations = postgres._Reservations()

    assert [reservations.take([port]) for port in (ports[0], ports[1], ports[0])] == [True, True, False]
    assert reservations.take([ports[2]])
    assert reservations.take([ports[0]])


@as_root
@pytest.mark.parametrize("first", [0, _NOBODY])
def test_what_one_user_got_is_given_to_no_other(first: int, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, str(scratch))
    scratch.chmod(0o1777)  # as the system's folder for temporary files
    with _other_process(first) as port:
        assert _taken(port, by=_NOBODY - first) == "False"

    assert _taken(port, by=_NOBODY - first) == "True"


def _taken(port: int, by: int) -> str:
    with _python(f"print(postgres._Reservations().take([{port}]))", by) as process:
        return process.communicate()[0].strip()
