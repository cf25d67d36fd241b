"""A recorded history of one run, as values and as a JSON Lines file.

A file is a header, one line for each stored event and for each event that was refused, in order, and a trailer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oa_runlog.canonical import Canonical

FORMAT = 1
"""Version of the file format; one that changes what a line means is another number, beside this one."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event of the run: its stored bytes, and the run's status and state hash after it."""

    data: bytes
    type: str
    status: str
    state_hash: str


@dataclass(frozen=True, slots=True)
class Attempted:
    """An event that the run did not take where this line stands: its bytes, and the refusal.

    `origin` and `allowed` are those of an `invalid_transition` (`allowed` sorted); empty for other reasons.
    """

    data: bytes
    trigger: str
    reason: str
    origin: str = ""
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What was recorded of one run.

    `release` recorded it; `triggers` are all that its table knew, sorted. `state` is the state at the end in the form
    of `oa_runlog.state.form`, `state_hash` its hash, `chain_head` the chain over the stored bytes, in hexadecimal.
    """

    release: str
    run_id: str
    shows: str
    triggers: tuple[str, ...]
    lines: tuple[Stored | Attempted, ...]
    state: Canonical
    state_hash: str
    chain_head: str

    @property
    def events(self) -> tuple[bytes, ...]:
        """The stored bytes."""
        return tuple(line.data for line in self.lines if isinstance(line, Stored))


def dump(history: History) -> str:
    """The text of the history's file: the same for the same history."""
    header = {
        "line": "header",
        "format": FORMAT,
        "release": history.release,
        "run_id": history.run_id,
        "shows": history.shows,
        "triggers": list(history.triggers),
    }
    trailer = {
        "line": "trailer",
        "events": len(history.events),
        "chain_head": history.chain_head,
        "state_hash": history.state_hash,
        "state": history.state,
    }
    lines = [header, *map(_line, history.lines), trailer]
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def _line(line: Stored | Attempted) -> dict[str, Canonical]:
    data = base64.b64encode(line.data).decode()
    if isinstance(line, Stored):
        after: dict[str, Canonical] = {"status": line.status, "state_hash": line.state_hash}
        return {"line": "event", "type": line.type, **after, "bytes": data}
    refusal: dict[str, Canonical] = {"reason": line.reason, "from": line.origin, "allowed": list(line.allowed)}
    return {"line": "attempted", "event": line.trigger, **refusal, "bytes": data}


def load(text: str) -> History:
    """The history in a file's text. Raises ValueError or KeyError for what is no file of this format."""
    header, *lines, trailer = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    if (header["line"], header["format"], trailer["line"]) != ("header", FORMAT, "trailer"):
        raise ValueError(f"this is not a history of format {FORMAT}")
    history = History(
        release=header["release"],
        run_id=header["run_id"],
        shows=header["shows"],
        triggers=tuple(header["triggers"]),
        lines=tuple(_read_line(line) for line in lines),
        state=trailer["state"],
        state_hash=trailer["state_hash"],
        chain_head=trailer["chain_head"],
    )
    if trailer["events"] != len(history.events):
        raise ValueError(f"the trailer counts {trailer['events']} events, the file has {len(history.events)}")
    return history


def _read_line(line: Mapping[str, Any]) -> Stored | Attempted:
    data = base64.b64decode(line["bytes"], validate=True)
    match line["line"]:
        case "event":
            return Stored(data, line["type"], line["status"], line["state_hash"])
        case "attempted":
            return Attempted(data, line["event"], line["reason"], line["from"], tuple(line["allowed"]))
        case what:
            raise ValueError(f"a history has no lines of kind {what!r}")
