"""What comes on standard input goes to a run: as it comes, in order, whatever the service says meanwhile."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import termios
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from apps.cli.input.stdin import LEAVE, attached, pieces
from apps.cli.input.tty import terminal_like_ours
from apps.cli.output import Output
from oa_base.refusal import Refusal
from oa_runlog.stdin import MAX_PIECE_BYTES, read_piece
from oa_testing.waiting import PATIENCE_S, eventually


class FakeTalk:
    """Takes inputs, or refuses the next ones. `most`: larger ones are refused."""

    def __init__(self, *refusals: Refusal, most: int = 192 * 1024) -> None:
        self.refusals = list(refusals)
        self.most = most
        self.taken: dict[str, str] = {}
        self.keys: list[str] = []
        self.changed = asyncio.Event()

    async def send(self, run_id: str, input_json: str, idempotency_key: str = "") -> int:
        self.keys.append(idempotency_key)
        if self.refusals:
            raise self.refusals.pop(0)
        if len(input_json.encode()) > self.most:
            raise Refusal("payload_too_large", "too much; send less", metadata={"limit_bytes": str(self.most)})
        self.taken[idempotency_key] = input_json
        self.changed.set()
        return len(self.taken)

    @property
    def data(self) -> bytes:
        return b"".join(read_piece(text).data for text in self.taken.values())

    @property
    def ended(self) -> bool:
        return bool(self.taken) and read_piece(list(self.taken.values())[-1]).ends

    async def until_ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.ended:
                self.changed.clear()
                await self.changed.wait()


@contextmanager
def piped(data: bytes) -> Iterator[int]:
    """A file descriptor with so much to read, and its end."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


async def sent(talk: FakeTalk, fd: int) -> None:
    async with attached(talk, "run_1", Output(), fd):  # type: ignore[arg-type]
        await talk.until_ended()


async def test_bytes_are_sent_as_they_are_with_their_end() -> None:
    talk = FakeTalk()
    with piped("Grüße".encode()[:3] + b"\0\xff\n") as fd:
        await sent(talk, fd)
    assert talk.data == "Grüße".encode()[:3] + b"\0\xff\n"


async def test_a_file_is_read_like_a_pipe(tmp_path: Path) -> None:
    file, talk = tmp_path / "file", FakeTalk()
    file.write_bytes(os.urandom(3 * MAX_PIECE_BYTES + 1))
    with io.FileIO(file) as opened:
        await sent(talk, opened.fileno())
    assert talk.data == file.read_bytes()
    assert [len(read_piece(text).data) for text in talk.taken.values()] == [*[MAX_PIECE_BYTES] * 3, 1, 0]


async def test_no_standard_input_is_an_empty_one() -> None:
    talk = FakeTalk()
    await sent(talk, 987_654)
    assert list(talk.taken.values()) == ['{"end":true}']


async def test_a_line_of_a_terminal_is_sent_when_it_is_there_and_ctrl_d_ends() -> None:
    talk = FakeTalk()
    ours, theirs = pty.openpty()
    try:
        async with attached(talk, "run_1", Output(), theirs):  # type: ignore[arg-type]
            os.write(ours, b"one\n")
            await talk.changed.wait()
            assert (talk.data, talk.ended) == (b"one\n", False)
            os.write(ours, b"two\n\x04")
            await talk.until_ended()
        assert talk.data == b"one\ntwo\n"
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def at_a_terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


async def typed_at(fd: int, talk: FakeTalk, keys: Callable[[], Coroutine[None, None, None]]) -> None:
    async with attached(talk, "run_1", Output(), fd, terminal=terminal_like_ours()):  # type: ignore[arg-type]
        await keys()
        await asyncio.sleep(PATIENCE_S)


async def test_at_a_terminal_every_key_goes_to_the_run_and_one_leaves_it() -> None:
    talk = FakeTalk()
    with at_a_terminal() as (ours, theirs):

        async def keys() -> None:
            os.write(ours, b"a\x03\x04\x1a\r")
            await eventually(lambda: talk.data == b"a\x03\x04\x1a\r")
            os.write(ours, LEAVE)

        before = termios.tcgetattr(theirs)
        with pytest.raises(click.Abort):
            await typed_at(theirs, talk, keys)
        assert termios.tcgetattr(theirs) == before
    assert not talk.ended, "the run goes on, and somebody else may type"


async def test_the_key_that_leaves_is_heard_while_nothing_can_be_sent() -> None:
    talk = FakeTalk(*[Refusal("unavailable", "away", retry_after_ms=60_000)] * 9)
    with at_a_terminal() as (ours, theirs):

        async def keys() -> None:
            os.write(ours, b"a")
            await eventually(lambda: bool(talk.keys))
            os.write(ours, b"b" + LEAVE)

        with pytest.raises(click.Abort):
            await typed_at(theirs, talk, keys)
    assert talk.data == b""


async def test_of_a_pipe_that_key_is_a_byte() -> None:
    talk = FakeTalk()
    with piped(b"a" + LEAVE + b"b") as fd:
        async with attached(talk, "run_1", Output(), fd, terminal=terminal_like_ours()):  # type: ignore[arg-type]
            await talk.until_ended()
    assert talk.data == b"a" + LEAVE + b"b"


async def test_what_a_service_can_not_take_now_is_sent_again_under_its_key() -> None:
    away, fast = Refusal("unavailable", "away"), Refusal("publish_rate_limited", "slow down", retry_after_ms=1)
    talk = FakeTalk(fast, away, fast)
    with piped(b"hello") as fd:
        await sent(talk, fd)
    assert (talk.data, len(set(talk.keys)), len(talk.keys)) == (b"hello", 2, 5)


async def test_where_less_is_taken_at_once_it_goes_in_halves_in_order() -> None:
    talk, data = FakeTalk(most=1000), bytes(range(256)) * 40
    with piped(data) as fd:
        await sent(talk, fd)
    assert talk.data == data


async def test_who_leaves_leaves_unread_what_has_not_come() -> None:
    reading, writing = os.pipe()
    try:
        async with attached(FakeTalk(), "run_1", Output(), reading):  # type: ignore[arg-type]
            await asyncio.sleep(0)
        os.write(writing, b"for somebody else")
        assert os.read(reading, 100) == b"for somebody else"
        assert [data async for data in pieces(987_654)] == []
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (Refusal("invalid_transition", "the run has ended"), ""),
        (Refusal("not_found", "no such run"), "standard input is not sent any more (not_found): no such run"),
    ],
)
async def test_a_run_that_has_ended_needs_no_more_and_all_else_is_told(
    refusal: Refusal, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = FakeTalk(refusal)
    with piped(b"hello") as fd:
        async with attached(talk, "run_1", Output(), fd), asyncio.timeout(PATIENCE_S):  # type: ignore[arg-type]
            while talk.refusals:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
    assert says in capsys.readouterr().err
    assert talk.taken == {}
