"""Lines of standard input, from whatever it is."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest

from apps.cli.input.typed import MAX_LINE_BYTES, TypedLines
from oa_testing.waiting import PATIENCE_S


async def all_lines() -> list[str]:
    typed, lines = TypedLines(), []
    async with asyncio.timeout(PATIENCE_S):
        while (line := await typed.next()) is not None:
            lines.append(line)
        assert await typed.next() is None, "its end stays"
    return lines


async def test_lines_of_a_file_are_read_without_blank_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines"
    file.write_bytes("one\n\n   \n zwölf \nbad \xff\n".encode("utf-8", "surrogateescape") + b"\xff\nlast")
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await all_lines() == ["one", "zwölf", "bad ÿ", "�", "last"]


async def test_more_lines_than_are_kept_and_one_that_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines"
    file.write_text("".join(f"{number}\n" for number in range(1000)) + "x" * (3 * MAX_LINE_BYTES))
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        *lines, long = await all_lines()
    assert lines == [str(number) for number in range(1000)]
    assert long == "x" * MAX_LINE_BYTES


async def test_a_pipe_gives_each_line_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        typed = TypedLines()
        async with asyncio.timeout(PATIENCE_S):
            for word in ("one", "two"):
                os.write(writing, f"{word}\nhalf ".encode())
                assert (await typed.next() or "").endswith(word)
            os.close(writing)
            assert await typed.next() == "half"
            assert await typed.next() is None


async def test_an_empty_or_missing_input_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.TextIOWrapper(io.BytesIO(b""))):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await all_lines() == []
