"""The vectors that clients in other languages are held against are what this one does."""

import json
from pathlib import Path

import pytest

from oa_khala.client.commands import Command
from oa_khala.client.states import State
from oa_khala.client.tests import transcripts, walks
from oa_khala.client.tests.transcripts import CALLS, VECTORS

PATHS = sorted(VECTORS.glob("*.json"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_session_answers_as_the_vectors_say(path: Path) -> None:
    transcript = json.loads(path.read_text("utf-8"))
    assert transcripts.replayed(transcript) == transcript, (
        "if that is wanted, record them anew: python -m libs.oa_khala.client.tests.record"
    )


def test_the_vectors_show_every_call_command_and_state() -> None:
    steps = [step for path in PATHS for step in json.loads(path.read_text("utf-8"))["steps"]]
    assert {step["call"] for step in steps} == set(CALLS)
    assert {step["state"] for step in steps} == {state.value for state in State}
    kinds = {command["kind"] for step in steps for command in step["commands"]}
    assert kinds == {transcripts.kind_of(kind) for kind in Command.__args__}


def test_the_vectors_show_every_count() -> None:
    counts = [json.loads(path.read_text("utf-8"))["counts"] for path in PATHS]
    assert all(any(each[name] for each in counts) for name in counts[0])


def test_a_walk_is_decided_by_its_seed_and_written_down_whole() -> None:
    transcript = walks.walk(7, 300)
    assert transcript == walks.walk(7, 300)
    assert transcripts.replayed(json.loads(json.dumps(transcript))) == transcript
    assert transcript != walks.walk(8, 300)
