"""Recording histories. A file that exists is never written again: it is what some deployment out there has stored.

`python -m tests.contract.histories.record` records what is missing of the current release.
`python -m tests.contract.histories.record --log NAME --shows TEXT` takes in a run of a real deployment: its stored
events on standard input, in order of seq, one a line in hexadecimal.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.proof.chain import chain_over
from oa_runlog.state import RunState, reducer
from oa_runlog.state.form import state_form, state_hash
from oa_runlog.state.transitions import TRIGGERS, trigger
from tests.contract.histories import stories, workers
from tests.contract.histories.check import allowed_in
from tests.contract.histories.history import Attempted, History, Stored, dump
from tests.contract.histories.teller import Tried

FOLDER = Path(__file__).parent
"""One folder a release: `runs/*.jsonl` and `workers.jsonl`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file of the corpus: its path under the folder of histories, and its text."""

    path: str
    text: str


def current_release() -> str:
    """The version that this checkout is, or will be when it is released."""
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def history_of(run_id: str, events: Iterable[bytes | Tried], *, shows: str, release: str) -> History:
    """The history of a run with these stored events, and those that are tried and refused between them.

    Raises Refusal when today's code does not take an event, ValueError when it takes one that is only tried.
    """
    state: RunState | None = None
    lines: list[Stored | Attempted] = []
    for event in events:
        if isinstance(event, Tried):
            lines.append(_attempted(state, event.data))
            continue
        read = wire.decode_event(event)
        state = reducer.advance(state, read, event)
        lines.append(Stored(event, str(read.type), str(state.status), state_hash(state)))
    stored = [line.data for line in lines if isinstance(line, Stored)]
    return History(
        release=release,
        run_id=run_id,
        shows=shows,
        triggers=tuple(sorted(TRIGGERS)),
        lines=tuple(lines),
        state=state_form(state),
        state_hash=state_hash(state),
        chain_head=chain_over(run_id, stored).hex(),
    )


def _attempted(state: RunState | None, data: bytes) -> Attempted:
    event = wire.decode_event(data)
    try:
        reducer.advance(state, event, data)
    except Refusal as refusal:
        origin = refusal.metadata.get("from", "")
        return Attempted(data, trigger(event.body), refusal.reason, origin, allowed_in(refusal))
    raise ValueError(f"{trigger(event.body)} is not refused here")


def corpus(release: str) -> list[Recorded]:
    """Everything that is recorded of a release, as today's code writes it."""
    runs = [
        Recorded(
            f"{release}/runs/{story.name}.jsonl",
            dump(history_of(story.run_id, story.told(), shows=story.shows, release=release)),
        )
        for story in stories.STORIES
    ]
    return [*runs, Recorded(f"{release}/workers.jsonl", workers.dump(release, workers.walks()))]


def write_missing(files: Iterable[Recorded], folder: Path = FOLDER) -> list[str]:
    """Write the files that don't exist yet; returns their paths."""
    written = []
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(file.text, "utf-8", newline="\n")
            written.append(file.path)
    return written


def from_log(name: str, shows: str, lines: Iterable[str], release: str) -> Recorded:
    """The file for a run of a real deployment, whose stored events are `lines`, each in hexadecimal."""
    events = [bytes.fromhex(line) for line in lines if line.strip()]
    if not events:
        raise ValueError("there are no events")
    run_id = wire.decode_event(events[0]).run_id
    return Recorded(f"{release}/runs/{name}.jsonl", dump(history_of(run_id, events, shows=shows, release=release)))


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Record what is missing in `folder`; returns the exit status."""
    parser = argparse.ArgumentParser(description="Record what is missing of the current release.")
    parser.add_argument("--log", metavar="NAME", help="take in one run instead, its events on standard input, in hex")
    parser.add_argument("--shows", default="a run of a real deployment", help="what the run shows, in a sentence")
    chosen = parser.parse_args(arguments)
    release = current_release()
    files = [from_log(chosen.log, chosen.shows, sys.stdin, release)] if chosen.log else corpus(release)
    written = write_missing(files, folder)
    if chosen.log and not written:
        sys.stderr.write(f"{files[0].path} exists, and histories are never rewritten: choose another name\n")
        return 1
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
