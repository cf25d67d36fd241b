"""How much of a suite by chance runs: a short form in `make test`, and a long one in `make gate` and `make fuzz`."""

import os

LONG_FORMS = "LONG_FORMS"
"""The variable that asks for the long forms, whatever it is set to."""


def is_long() -> bool:
    """Whether the long forms are asked for."""
    return bool(os.environ.get(LONG_FORMS))


def size(*, short: int, long: int) -> int:
    """How much runs: examples, programs, or histories."""
    return long if is_long() else short
