"""What a line that somebody types means as an answer to what Codex asks."""

from __future__ import annotations

import asyncio
from unittest.mock import AsyncMock, Mock, call

import pytest

from apps.cli.commands.local.conversation import Talk, answer_of
from oa_runlog.events import RequestKind, RequestOpened, RequestOption

OPTIONS = (RequestOption("1", "The red one"), RequestOption("2", "1"), RequestOption("yes", ""))


@pytest.mark.parametrize(
    ("kind", "line", "option", "text"),
    [
        (RequestKind.APPROVAL, "YES", "yes", ""),
        (RequestKind.APPROVAL, "n", "no", ""),
        (RequestKind.APPROVAL, "yes, but to the left", "", ""),
        (RequestKind.CHOICE, "2", "2", ""),
        (RequestKind.CHOICE, "the  RED one", "1", ""),
        (RequestKind.CHOICE, "1", "1", ""),  # its number, though another one is called so
        (RequestKind.CHOICE, "Yes", "yes", ""),
        (RequestKind.CHOICE, "3", "", ""),
        (RequestKind.TEXT, "yes", "", "yes"),
    ],
)
def test_a_line_as_an_answer(kind: RequestKind, line: str, option: str, text: str) -> None:
    assert answer_of(RequestOpened("r1", kind, "What?", options=OPTIONS), line) == (option, text)


async def test_a_line_is_for_the_question_that_was_shown_last() -> None:
    cli, client = Mock(), AsyncMock()
    typed = AsyncMock(ended=False)
    typed.next.side_effect = ["red", "2", "as you like", "to the left", None]
    conversation = Talk(cli, client, "run_1", typed)
    for name, kind in [("r1", RequestKind.CHOICE), ("r2", RequestKind.CHOICE), ("r3", RequestKind.TEXT)]:
        conversation.asked(RequestOpened(name, kind, f"What is {name}?", options=OPTIONS))
    assert titles_in(cli) == ["Codex asks: What is r1?"]
    conversation.settled("r1")  # by somebody else
    assert titles_in(cli) == ["Codex asks: What is r1?", "Codex asks: What is r2?"]
    await conversation.listen()
    talk = client.commands.talk
    assert talk.answer.await_args_list == [
        call("run_1", "r2", option="2", text=""),
        call("run_1", "r3", option="", text="as you like"),
    ]
    assert talk.send.await_args_list == [call("run_1", '"red"'), call("run_1", '"to the left"')]
    assert titles_in(cli)[2:] == ["Codex asks: What is r3?"]


def titles_in(cli: Mock) -> list[str]:
    shown = [str(noted.args[0]) for noted in cli.output.note.call_args_list]
    return [line for line in shown if line.startswith("Codex asks: ")]


async def test_lines_that_come_as_the_turn_ends_are_for_the_next_one() -> None:
    """The first is on its way, and the second was read, when the turn is closed."""
    cli, client, sent = Mock(), AsyncMock(), asyncio.Event()
    typed = AsyncMock(ended=False)
    typed.next.side_effect = ["one", "two", None]

    async def send(*_: object) -> None:
        await sent.wait()

    client.commands.talk.send.side_effect = send
    conversation = Talk(cli, client, "run_1", typed)
    listening = asyncio.create_task(conversation.listen())
    await asyncio.sleep(0)  # it sends the first
    closing = asyncio.create_task(conversation.close(listening))
    await asyncio.sleep(0)  # it waits for that
    sent.set()
    assert await closing == "two"
    assert client.commands.talk.send.await_args_list == [call("run_1", '"one"')]
