"""Finds what is meant: by its id, by the beginning of its id if only one begins so, by its name, or as `latest`.

This is the one mechanism for everything that has an id. A whole id is taken as it is, without asking any service.
Anything else is looked up in the list of what exists.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal

LATEST = "latest"
_SHOWN = 5
"""Maximum number of candidates that are named to people; programs get all of them."""
_ULID = "[0-9A-HJKMNP-TV-Z]"


@dataclass(frozen=True)
class Listed:
    """Something that exists. `name`: its name beside its id, empty for none."""

    id: str
    name: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of things with ids. `prefixes`: how ids begin; without any, ids are chosen freely and listed in order.

    `latest` is the newest with the first prefix. `named`: names are looked up here; otherwise by the service.
    """

    noun: str
    field: str
    lists: str
    prefixes: tuple[str, ...] = ()
    named: bool = False

    def is_id(self, text: str) -> bool:
        """Whether the text is a whole id."""
        return any(re.fullmatch(f"{prefix}{_ULID}{{26}}", text) for prefix in self.prefixes)

    def beginnings(self, text: str) -> tuple[str, ...]:
        """Return the beginnings of ids that the text may stand for; none if it can't be the beginning of an id."""
        if not self.prefixes:
            return (text,) if re.fullmatch("[a-z0-9][a-z0-9._-]*", text) else ()
        lowered = text.lower()
        ours = [each for each in self.prefixes if lowered.startswith(each)]
        rest = (text[len(ours[0]) :] if ours else text).upper()
        if not re.fullmatch(f"{_ULID}{{1,25}}", rest):
            return ()
        return tuple(f"{each}{rest}" for each in ours or self.prefixes)


async def meant(kind: Kind, text: str, listed: Callable[[], Awaitable[Sequence[Listed]]]) -> str:
    """Return the id that is meant. A text that can't be an id is returned as it is: the service says what is wrong.

    Raises Refusal `not_found`; `invalid_value` if several match, with all of them in its metadata.
    """
    if kind.is_id(text) or not (text == LATEST or kind.named or kind.beginnings(text)):
        return text
    return chosen(kind, text, await listed())


def chosen(kind: Kind, text: str, listed: Sequence[Listed]) -> str:
    """Return the id of the listed one that is meant. A whole id or name takes precedence over `latest` and beginnings.

    Raises Refusal as `meant` does.
    """
    if exact := [each.id for each in listed if text in (each.id, each.name)]:
        return only_one(kind, exact, "have that name")
    if text == LATEST:
        newest = [each.id for each in listed if each.id.startswith(kind.prefixes[:1])] if kind.prefixes else []
        found = [max(newest)] if newest else [each.id for each in listed[-1:] if not kind.prefixes]
    else:
        found = [each.id for each in listed if each.id.startswith(kind.beginnings(text))]
    return only_one(kind, found, "begin so")


def only_one(kind: Kind, found: Sequence[str], why: str, *, more: bool = False) -> str:
    """Return the only one that was found. `more`: there are more than these. Raises Refusal as `meant` does."""
    if not found:
        raise Refusal("not_found", f"there is no such {kind.noun}; look with `{kind.lists}`", field=kind.field)
    if len(found) > 1:
        count = f"{len(found)}{' or more' if more else ''}"
        named = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        message = f"{count} {_several(kind.noun)} {why}: {named}; give more of the id"
        metadata = {"count": str(len(found)), "candidates": " ".join(found)}
        raise Refusal("invalid_value", message, field=kind.field, metadata=metadata)
    return found[0]


def _several(noun: str) -> str:
    return " or ".join(f"{each}s" for each in noun.split(" or "))
