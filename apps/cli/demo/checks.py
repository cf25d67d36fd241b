"""The comparisons of a demo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """Something that must hold, with what was found on each side."""

    name: str
    applied: str
    authority: str
    receipt: str

    @property
    def holds(self) -> bool:
        """Whether all sides that have a value have the same one."""
        return len({value for value in (self.applied, self.authority, self.receipt) if value}) == 1
