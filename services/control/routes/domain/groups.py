"""Route groups: which paths belong together, and which side answers a person."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from oa_base.refusal import Refusal
from services.control.routes.limits import MAX_GROUPS

_SHARES = 10_000
_SHARES_PER_PERCENT = _SHARES // 100
_DOTS = frozenset({b".", b".."})
_METHODS = "/openagents."
"""The edge answers all paths that begin so: they are the methods of the API, and never reach a group."""
DOCUMENTS = frozenset({"/.well-known/jwks.json", "/openapi.json"})
"""The edge answers these paths itself, too."""


class Side(StrEnum):
    """The side that answers a web request."""

    SHELL = "shell"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class Group:
    """Paths that move together. `pinned` is the side for everybody; if None, `percent` of the people get the shell."""

    name: str
    prefixes: Sequence[str]
    pinned: Side | None
    percent: int

    def side_for(self, person: str, choice: Side | None) -> Side:
        """Return the side for a client with this cohort id, which may have chosen a side."""
        if self.pinned is not None:
            return self.pinned
        if choice is not None:
            return choice
        return Side.SHELL if _share(self.name, person) < self.percent * _SHARES_PER_PERCENT else Side.LEGACY


class Groups:
    """All groups of a version."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        self._by_name: Mapping[str, Group] = {group.name: group for group in sorted(groups, key=lambda one: one.name)}
        self._by_prefix = {_trimmed(prefix): group for group in self for prefix in group.prefixes}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Group | None:
        """The group with a name."""
        return self._by_name.get(name)

    def of_path(self, path: str) -> Group | None:
        """The group with the longest prefix of whole segments."""
        path = _trimmed(path)
        while True:
            group = self._by_prefix.get(path)
            if group is not None or not path:
                return group
            path = path.rpartition("/")[0]

    def with_group(self, group: Group) -> Groups:
        """Return the groups with this one added or replaced. Raises Refusal `invalid_value`, `limit_reached`."""
        others = [one for one in self if one.name != group.name]
        if len(others) >= MAX_GROUPS:
            raise Refusal("limit_reached", f"there are {MAX_GROUPS} groups already; delete one first", field="group")
        taken = {_trimmed(prefix): one.name for one in others for prefix in one.prefixes}
        own: set[str] = set()
        for index, given in enumerate(group.prefixes):
            _require_reachable(given, f"group.prefixes[{index}]")
            prefix = _trimmed(given)
            if prefix in own or prefix in taken:
                owner = taken.get(prefix, group.name)
                message = f"this prefix stands in the group {owner} already; give each path to one group"
                raise Refusal("invalid_value", message, field=f"group.prefixes[{index}]")
            own.add(prefix)
        return Groups([*others, group])

    def without(self, name: str) -> Groups:
        """Return the groups without this one. Raises Refusal `not_found`."""
        if name not in self._by_name:
            raise no_group("name")
        return Groups(one for one in self if one.name != name)

    def at_percent(self, name: str, percent: int) -> Groups:
        """Return the groups with this share of the shell in one of them."""
        return Groups(replace(one, percent=percent) if one.name == name else one for one in self)


def no_group(field: str) -> Refusal:
    """The refusal for the name in `field`, which no group has."""
    return Refusal("not_found", "there is no such group; oa admin route list shows those there are", field=field)


def checked_path(raw_path: bytes) -> str:
    """Return the path that decides, with escapes decoded. Raises Refusal `invalid_value` for a path that two programs
    could read differently: one with a dot segment, a backslash, or a control character."""
    path = unquote_to_bytes(raw_path)
    if _DOTS & set(path.split(b"/")) or b"\\" in path or any(byte < 0x20 for byte in path):
        message = "the path has a dot segment, a backslash or a control character; ask for a plain one"
        raise Refusal("invalid_value", message, field="path")
    return path.decode("utf-8", "replace")


def _require_reachable(prefix: str, field: str) -> None:
    """Raises Refusal `invalid_value` for a prefix that no request matches, or that means more than it seems to: `//`
    would be the whole site."""
    segments = prefix.removesuffix("/").encode().split(b"/")[1:]
    if b"" in segments or _DOTS & set(segments):
        message = "the prefix has an empty segment or a dot segment; give a plain path like /app, or / for all"
        raise Refusal("invalid_value", message, field=field)
    if prefix.startswith(_METHODS):
        message = f"paths that begin with {_METHODS} are the API's and are in no group; give another path"
        raise Refusal("invalid_value", message, field=field)
    if _trimmed(prefix) in DOCUMENTS:
        message = f"control itself answers {' and '.join(sorted(DOCUMENTS))}; give another path"
        raise Refusal("invalid_value", message, field=field)


def _trimmed(path: str) -> str:
    return path.rstrip("/")


def _share(group: str, person: str) -> int:
    digest = hashlib.sha256(f"{group}/{person}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SHARES
