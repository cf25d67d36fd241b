"""Classes of retention: for how long the events of a finished run stay in the log before they move to the archive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oa_platform.parsers import Parser
from oa_runlog.events import DEFAULT_RETENTION_CLASS

KEEP = "keep"
"""What stands in place of an age where runs never leave the log."""
MAX_AGE_S = 3_153_600_000
"""Longest age of a class: a hundred years. What is to stay for longer is kept."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The name is what the rule of RunSpec.retention_class takes.
_CLASS = re.compile(r"(?P<name>[a-z][a-z0-9_-]{0,31})=(?:keep|(?P<number>[0-9]{1,10})(?P<unit>[smhd]))")


@dataclass(frozen=True)
class RetentionClasses:
    """The classes that there are: name -> age in seconds at which finished runs leave the log; None: never."""

    classes: tuple[tuple[str, int | None], ...]

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(name for name, _ in self.classes)

    @property
    def ages(self) -> Mapping[str, int]:
        """Those whose runs leave the log, with the age at which they do."""
        return {name: age_s for name, age_s in self.classes if age_s is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={KEEP if age_s is None else f'{age_s}s'}" for name, age_s in self.classes)


KEEP_ALL = RetentionClasses(((DEFAULT_RETENTION_CLASS, None),))
"""Only the default class, and nothing leaves the log."""


def retention_classes() -> Parser[RetentionClasses]:
    """Names with ages: "short=1d,default=30d,audit=keep"."""

    def parse(given: str) -> RetentionClasses:
        classes: dict[str, int | None] = {}
        for part in given.split(","):
            match = _CLASS.fullmatch(part.strip())
            if not match or match["name"] in classes:
                raise ValueError
            classes[match["name"]] = _age_s(match) if match["number"] else None
        if DEFAULT_RETENTION_CLASS not in classes:
            raise ValueError(f"{DEFAULT_RETENTION_CLASS!r} is missing, the class of runs that name none")
        return RetentionClasses(tuple(classes.items()))

    return Parser(parse, "a list like short=1d,default=30d,audit=keep, with the units s, m, h and d")


def _age_s(match: re.Match[str]) -> int:
    age_s = int(match["number"]) * _UNITS_S[match["unit"]]
    if not 0 < age_s <= MAX_AGE_S:
        raise ValueError(f"an age is from 1s to {MAX_AGE_S // _UNITS_S['d']}d")
    return age_s
