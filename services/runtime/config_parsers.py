"""Parsers for the values of settings that only the runtime has."""

from __future__ import annotations

import re

from oa_platform.config.parsers import Parser
from oa_runlog.events import DEFAULT_RETENTION_CLASS
from services.runtime.retention.domain import KEEP, RetentionClasses

MAX_AGE_S = 3_153_600_000
"""Maximum age of a retention class: a hundred years. Use `keep` for runs that must stay longer."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The name has the form that the rule of RunSpec.retention_class allows.
_CLASS = re.compile(rf"(?P<name>[a-z][a-z0-9_-]{{0,31}})=(?:{KEEP}|(?P<number>[0-9]{{1,10}})(?P<unit>[smhd]))")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/=-]*)?")


def archive_url() -> Parser[str]:
    """An absolute path, or a bucket with a prefix."""

    def parse(given: str) -> str:
        if not (given.startswith("/") or _BUCKET.fullmatch(given)):
            raise ValueError
        return given

    return Parser(parse, "an absolute path, or a bucket like s3://bucket/prefix")


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
