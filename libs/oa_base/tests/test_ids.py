"""Ids have one form."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.ids import ULID_PATTERN

ULIDS = st.from_regex(f"\\A{ULID_PATTERN}\\Z")


def is_id(text: str, prefix: str) -> bool:
    return re.fullmatch(f"{prefix}_{ULID_PATTERN}", text) is not None


@given(ULIDS)
def test_a_prefix_and_a_ulid_are_an_id_of_that_kind_only(ulid: str) -> None:
    assert is_id(f"run_{ulid}", "run")
    assert not is_id(f"run_{ulid}", "wrk")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run_",
        "run",
        "run_01",
        f"run_{'I' * 26}",
        f"run_{'a' * 26}",
        f"run_{'0' * 27}",
        f"run_{'0' * 26}\n",
        f"run_8{'0' * 25}",
        f"run_0{'U' * 25}",
    ],
)
def test_other_forms_are_no_ids(text: str) -> None:
    assert not is_id(text, "run")


@given(st.text())
def test_no_text_breaks_the_check(text: str) -> None:
    assert not is_id(text, "run") or len(text) == 30
