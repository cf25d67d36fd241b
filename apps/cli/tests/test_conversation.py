"""What a line that somebody types means as an answer to what Codex asks."""

from __future__ import annotations

import pytest

from apps.cli.conversation import answer_of
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
