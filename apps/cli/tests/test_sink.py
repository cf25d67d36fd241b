"""An output that fails, or that somebody else has made non-blocking."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from apps.cli.sink import Sink, Strays, keep_standard_descriptors


def test_what_is_non_blocking_and_full_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(1 << 20)
    read = bytearray()

    def reader() -> None:
        while piece := os.read(reading, 1 << 12):
            read.extend(piece)

    thread = threading.Thread(target=reader)
    with os.fdopen(writing, "w") as stream:
        thread.start()
        sink = Sink(stream)
        sink.write_bytes(data)
        assert sink.lost is None
    thread.join()
    os.close(reading)
    assert bytes(read) == data


def test_the_first_failure_is_kept_and_the_rest_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        for sink, number in ((Sink(None), errno.EBADF), (Sink(nobody_reads), errno.EPIPE)):
            assert _failure(sink, "") is None, "nothing had to be written"
            first = _failure(sink, "text")
            assert first is not None
            assert first.errno == number
            assert _failure(sink, "more") is first


def _failure(sink: Sink, text: str) -> OSError | None:
    sink.write(text)
    return sink.lost


def test_what_prints_by_itself_drives_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as stream:
        print("a\tb\x1b[2J\u202e你", file=Strays(Sink(stream)))
    assert (tmp_path / "out").read_bytes() == b"a\tb\\x1b[2J\\u202e\\u4f60\n"


def test_what_prints_bytes_drives_none_either(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as stream:
        Strays(Sink(stream)).write(b"a\x1b\xff\n")
    assert (tmp_path / "out").read_bytes() == b"a\\x1b\\xff\n"


def test_open_standard_files_stay_what_they_are() -> None:
    before = [os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)]
    keep_standard_descriptors()
    assert [os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)] == before
