"""The catalogue of reasons lists what is given: somebody who handles a reason handles something that can come."""

import re

from oa_base.catalogue import all_reasons
from tests.house.files import python_files

NEVER_GIVEN = {"write_path_frozen"}
"""Reasons of the contract that no code gives. The contract only grows, so they stay, and say so."""
_WORDS = re.compile(r'"([a-z_]+)"')


def never_given(texts: list[str]) -> set[str]:
    """The reasons that stand in none of these texts of programs."""
    given = {word for text in texts for word in _WORDS.findall(text)}
    return {info.reason for info in all_reasons()} - given


def test_every_reason_is_given_somewhere() -> None:
    production = [file for file in python_files() if file.parts[0] in {"apps", "libs", "services"} and not file.is_test]
    assert never_given([file.text for file in production]) == NEVER_GIVEN


def test_a_reason_that_nobody_gives_is_found() -> None:
    texts = [f'raise Refusal("{info.reason}", text)' for info in all_reasons() if info.reason != "not_found"]
    assert never_given(texts) == {"not_found"}
