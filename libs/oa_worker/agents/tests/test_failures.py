"""What a run's readers are told of an exception: enough to know what happened, and no secret of the worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_worker.agents.failures import cause_in, words_of


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such item", "ValueError: no such item"),
        ("", "ValueError"),
        ("a\n\x1b[2J", r"ValueError: a\n\x1b[2J"),
        ("postgresql://me:word@db/x is away", "ValueError: postgresql://***db/x is away"),
        ("Authorization: Bearer abc.def", "ValueError: Authorization: Bearer ***"),
        ("Basic dXNlcjpwYXNz", "ValueError: Basic ***"),
        ("the key sk-proj-abcdef123456 is refused", "ValueError: the key *** is refused"),
        ("oak_01K0000000000000000 has ended", "ValueError: *** has ended"),
        ("token eyJhbGciOi.eyJzdWIiOi.c2ln", "ValueError: token ***"),
        ("password=word&user=me", "ValueError: password***&user=me"),
        ('{"api_key": "word"}', 'ValueError: {"api_key***"}'),
        ("task 17 is skipped", "ValueError: task 17 is skipped"),
    ],
)
def test_an_exception_is_said_without_what_looks_like_a_secret(said: str, shown: str) -> None:
    assert words_of(ValueError(said), 500) == shown


@given(st.text(max_size=300), st.integers(20, 100))
def test_it_has_a_limit_whatever_it_says(said: str, most: int) -> None:
    words = words_of(ValueError(said), most)
    assert len(words) <= most
    assert words.isprintable() or max(words) >= "\u00a0"


def test_one_that_cant_be_said_has_its_type() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert words_of(Mute(), 100) == "Mute"


def test_a_group_is_said_with_what_is_in_it() -> None:
    group = ExceptionGroup("two", [ValueError("password=word"), ExceptionGroup("in it", [KeyError("b")])])
    assert words_of(group, 500) == (
        "ExceptionGroup: two (2 sub-exceptions): ValueError: password***; "
        "ExceptionGroup: in it (1 sub-exception): KeyError: 'b'"
    )
    many = ExceptionGroup("many", [ValueError("x" * 1_000) for _ in range(1_000)])
    assert len(words_of(many, 100)) == 100


def test_a_group_of_one_stands_for_that_one() -> None:
    one, two = ValueError("a"), ExceptionGroup("two", [ValueError("a"), ValueError("b")])
    assert cause_in(ExceptionGroup("group", [ExceptionGroup("within it", [one])])) is one
    assert cause_in(ExceptionGroup("group", [two])) is two
    assert cause_in(one) is one
