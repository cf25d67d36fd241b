"""A port that a test means to use is not another test process's in the meantime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from oa_testing import postgres
from oa_testing.postgres import free_port


@contextmanager
def _other_process() -> Iterator[int]:
    """Another process that got a port and does not listen there yet."""
    program = "from oa_testing.postgres import free_port; print(free_port(), flush=True); input()"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_what_another_process_got_is_given_to_nobody_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with _other_process() as port:
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
