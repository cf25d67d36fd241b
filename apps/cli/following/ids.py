"""Which one is meant: by its id, by the beginning of its id if only one begins so, by its name, or as `latest`.

One mechanism for everything that has an id. A whole id is taken as it is, without a question to anybody. Only for the
rest is asked what there is.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal

LATEST = "latest"
_SHOWN = 5
"""So many candidates are named to people; programs get all of them."""
_ULID = "[0-9A-HJKMNP-TV-Z]"


@dataclass(frozen=True)
class Listed:
    """One that there is. `name`: what else it is called, empty for nothing."""

    id: str
    name: str = ""


@dataclass(frozen=True)
class Kind:
    """What has such ids. `prefixes`: how they begin; without any, ids are chosen freely and listed in order.

    `latest` is the newest of the first prefix. `named`: a name is looked up here; else the service knows names, too.
    """

    noun: str
    field: str
    lists: str
    prefixes: tuple[str, ...] = ()
    named: bool = False

    def is_id(self, text: str) -> bool:
        """Whether it is a whole id."""
        return any(re.fullmatch(f"{prefix}{_ULID}{{26}}", text) for prefix in self.prefixes)

    def beginnings(self, text: str) -> tuple[str, ...]:
        """How the ids begin that it may stand for; none if it can't be the beginning of an id."""
        if not self.prefixes:
            return (text,) if re.fullmatch("[a-z0-9][a-z0-9._-]*", text) else ()
        lowered = text.lower()
        ours = [each for each in self.prefixes if lowered.startswith(each)]
        rest = (text[len(ours[0]) :] if ours else text).upper()
        if not re.fullmatch(f"{_ULID}{{1,25}}", rest):
            return ()
        return tuple(f"{each}{rest}" for each in ours or self.prefixes)


async def meant(kind: Kind, text: str, listed: Callable[[], Awaitable[Sequence[Listed]]]) -> str:
    """The id that is meant. What can't be an id is given back as it is: the service says what is wrong with it.

    Raises Refusal `not_found`; `invalid_value` if several are meant, with all of them in its metadata.
    """
    if kind.is_id(text) or not (text == LATEST or kind.named or kind.beginnings(text)):
        return text
    return chosen(kind, text, await listed())


def chosen(kind: Kind, text: str, listed: Sequence[Listed]) -> str:
    """The id of the one of them that is meant: a whole id or name counts before `latest` and beginnings.

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
    """The one that was found. `more`: there are more than these. Raises Refusal as `meant` does."""
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
