"""What a session was told and what it answered, as JSON: every client in every language gives the same answers.

A transcript is an object: `chains`, the name of what makes its chain values, `grants`, the topics of owners that it
asks for, `counts`, what had come in the end, and `steps`. A step is `call`, `args`, `commands`, and then where the
session stands: `state`, `generation`, `wake_at_ms`.
Frames and commands have their kind in `kind`, bytes are hexadecimal, sets are sorted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from oa_khala import frames
from oa_khala.client.commands import Chains, Command, Instant, NoChains, SyncToken
from oa_khala.client.session import ClientSession

VECTORS = Path(__file__).parent / "vectors"
CALLS = (
    "start", "stop", "subscribe", "unsubscribe", "suspended", "resumed", "connected", "disconnected", "frame", "timer",
    "token", "no_token", "rewind",
)  # fmt: skip
_BYTES = {"payload", "chain", "follows"}


class Concatenated:
    """Chain values that show what they are made of; topics that are no run's have none."""

    def start(self, topic: str) -> bytes:
        """See Chains."""
        return b"0" if topic.startswith("run:") else b""

    def after(self, chain: bytes, payload: bytes) -> bytes:
        """See Chains."""
        return chain + payload


CHAINS: dict[str, Callable[[], Chains]] = {"none": NoChains, "concatenated": Concatenated}


class Recorded(ClientSession):
    """A session that writes down what happens to it: `steps`."""

    def __init__(
        self, device_id: str, client_build_id: str, *, chains: Chains | None = None, grants: Collection[str] = ()
    ) -> None:
        super().__init__(device_id, client_build_id, chains=chains, grants=grants)
        self.grants = sorted(grants)
        self.chains = "none" if chains is None else type(chains).__name__.lower()
        self.steps: list[dict[str, Any]] = []

    def transcript(self) -> dict[str, Any]:
        """What was written down, as JSON's values."""
        return _transcript(self.chains, self.grants, self, self.steps)


def _transcript(chains: str, grants: list[str], session: ClientSession, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"chains": chains, "grants": grants, "counts": asdict(session.counts), "steps": steps}


def _recorded(call: str) -> Callable[..., list[Command]]:
    def recorded(self: Recorded, *args: Any) -> list[Command]:
        commands: list[Command] = getattr(ClientSession, call)(self, *args)
        self.steps.append({"call": call, "args": encoded(args), **answer(self, commands)})
        return commands

    return recorded


for _call in CALLS:
    setattr(Recorded, _call, _recorded(_call))


def answer(session: ClientSession, commands: list[Command]) -> dict[str, Any]:
    """What a call gave, and where the session stands after it."""
    return {
        "commands": encoded(commands),
        "state": session.state.value,
        "generation": session.generation,
        "wake_at_ms": session.wake_at_ms,
    }


def replayed(transcript: dict[str, Any]) -> dict[str, Any]:
    """The transcript as a new session answers the same calls now."""
    grants = transcript["grants"]
    session = ClientSession("dev_1", "test/1", chains=CHAINS[transcript["chains"]](), grants=grants)
    steps = []
    for step in transcript["steps"]:
        commands = getattr(session, step["call"])(*decoded(step["args"]))
        steps.append({"call": step["call"], "args": step["args"], **answer(session, commands)})
    return _transcript(transcript["chains"], grants, session, steps)


def write(path: Path, transcript: dict[str, Any]) -> None:
    """The transcript as a file, a step a line."""
    lines = ",\n".join(json.dumps(step, separators=(",", ":")) for step in transcript["steps"])
    head = json.dumps({name: transcript[name] for name in ("chains", "grants", "counts")}, separators=(",", ":"))
    path.write_text(f'{head[:-1]},"steps":[\n{lines}\n]}}\n', "utf-8")


# ------------------------------------------------------------------------------------------------- values <-> JSON


def encoded(value: Any) -> Any:
    """`value` as JSON has it; see the module."""
    if isinstance(value, frames.UnknownFrame):
        return {"kind": "unknown", "number": value.kind}
    if is_dataclass(value):
        kind = {"kind": kind_of(type(value))} if type(value) in _KINDS.values() else {}
        return {**kind, **{field.name: encoded(getattr(value, field.name)) for field in fields(value)}}
    if isinstance(value, frames.TopicHead):
        return {name: encoded(part) for name, part in value._asdict().items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(value)
    return [encoded(each) for each in value] if isinstance(value, list | tuple) else value


def decoded(value: Any) -> Any:
    """What `encoded` made JSON of."""
    if isinstance(value, list):
        return tuple(decoded(each) for each in value)
    if not isinstance(value, dict):
        return value
    parts: dict[str, Any] = {
        name: bytes.fromhex(part) if name in _BYTES else decoded(part) for name, part in value.items()
    }
    kind = parts.pop("kind", None)
    if kind == "unknown":
        return frames.UnknownFrame(parts["number"])
    if "plan" in parts:
        parts["plan"] = frames.Plan(parts["plan"])
    if "text" in parts:
        parts["topics"] = frozenset(parts["topics"])
    return _type_of(kind, parts)(**parts)


def _type_of(kind: str | None, parts: dict[str, Any]) -> Callable[..., Any]:
    if kind is not None:
        return _KINDS[kind]
    if parts.keys() == set(frames.TopicHead._fields):
        return frames.TopicHead
    types: tuple[type[Any], ...] = (Instant, SyncToken, frames.Cursor, frames.TopicState)
    return next(each for each in types if {field.name for field in fields(each)} == parts.keys())


def kind_of(type_: type) -> str:
    """A frame's or command's kind: its name as JSON's fields have theirs."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type_.__name__.removesuffix("Frame")).lower()


_KINDS: dict[str, type[Any]] = {
    kind_of(each): each for each in (*frames.ServerFrame.__args__, *frames.ClientFrame.__args__, *Command.__args__)
}
