"""Retention classes: how long the events of a finished run stay in the log before they move to the archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oa_runlog.events import DEFAULT_RETENTION_CLASS

KEEP = "keep"
"""The word in place of an age if runs never leave the log."""


@dataclass(frozen=True)
class RetentionClasses:
    """The classes that exist: name -> age in seconds at which finished runs leave the log; None: never."""

    classes: tuple[tuple[str, int | None], ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of all classes."""
        return frozenset(name for name, _ in self.classes)

    @property
    def ages(self) -> Mapping[str, int]:
        """The classes whose runs leave the log, with the age at which they do."""
        return {name: age_s for name, age_s in self.classes if age_s is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={KEEP if age_s is None else f'{age_s}s'}" for name, age_s in self.classes)


KEEP_ALL = RetentionClasses(((DEFAULT_RETENTION_CLASS, None),))
"""Only the default class, and nothing leaves the log."""
