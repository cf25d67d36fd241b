"""What is handed over is refused by its name when it is of another kind than it has to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_wire.given import (
    MAX_COUNT,
    check_count,
    check_duration,
    check_flag,
    check_function,
    check_moment,
    check_named_texts,
    check_text,
    check_text_arguments,
    check_texts,
    check_whole,
)


class Index:
    """A whole number that is no int, as other libraries have them."""

    def __index__(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (check_text, "é"),
        (check_texts, ()),
        (check_texts, ["a", ""]),
        (check_named_texts, {}),
        (check_named_texts, {"a": "b"}),
        (check_whole, -1),
        (check_whole, Index()),
        (check_count, 0),
        (check_count, MAX_COUNT),
        (check_count, Index()),
        (check_duration, timedelta(-1)),
        (check_moment, datetime(2026, 1, 1, tzinfo=UTC)),
        (check_function, print),
        (check_flag, False),
    ],
)
def test_what_is_of_the_kind_passes(check: Callable[[Any, str], None], given: Any) -> None:
    check(given, "x")


@pytest.mark.parametrize(
    ("check", "given", "field"),
    [
        (check_text, 5, "x"),
        (check_text, None, "x"),
        (check_text, b"a", "x"),
        (check_text, "s3cret\ud800", "x"),
        (check_texts, "s3cret", "x"),
        (check_texts, ["a", 5], "x[1]"),
        (check_named_texts, {"PORT": 8080}, "x[PORT]"),
        (check_named_texts, {5: "a"}, "x"),
        (check_whole, 1.0, "x"),
        (check_whole, "5", "x"),
        (check_count, -1, "x"),
        (check_count, MAX_COUNT + 1, "x"),
        (check_count, 1.5, "x"),
        (check_duration, 1.5, "x"),
        (check_moment, "2026-01-01", "x"),
        (check_moment, date(2026, 1, 1), "x"),
        (check_function, "s3cret", "x"),
        (check_flag, "s3cret", "x"),
        (check_flag, 1, "x"),
        (check_texts, None, "x"),
        (check_texts, iter(["a"]), "x"),
    ],
)
def test_what_is_of_another_kind_is_refused(check: Callable[[Any, str], None], given: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        check(given, "x")
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)
    assert "s3cret" not in refused.value.message


def test_each_of_several_arguments_is_named() -> None:
    check_text_arguments(title="a", detail="")
    with pytest.raises(Refusal) as refused:
        check_text_arguments(title="a", detail=None)
    assert refused.value.field == "detail"


def test_a_mapping_of_texts_may_be_any() -> None:
    class One(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            return name

        def __iter__(self) -> Any:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    check_named_texts(One(), "x")
