"""Finds the run that is meant: by its id, by the beginning of its id, or as `latest`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from apps.cli.following.ids import LATEST, Kind, only_one
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.cpython.files import read_json, write_private_json
from oa_khala.topics import run_events

_RUN = Kind("run", "run_id", "oa run list", ("run_",))
_STARTED = "latest-run.json"
_ASKED = 200
"""Maximum number of runs with the same beginning that are counted."""


def is_run_id(text: str) -> bool:
    """Whether the text is a whole id of a run."""
    try:
        run_events(text)
    except Refusal:
        return False
    return True


def may_be_run(text: str) -> bool:
    """Whether the text could name a run: its id, the beginning of one, or `latest`."""
    return text == LATEST or bool(_RUN.beginnings(text)) or is_run_id(text)


def remember_started(client: Client, folder: Path, run_id: str) -> None:
    """Keep which run was started last from here, because the read model has it only a moment later.

    If that can't be written (a full disk), `latest` is late by that moment. The run goes on, so nothing is refused.
    """
    with suppress(Refusal):
        write_private_json(folder / _STARTED, {"namespace": client.namespace, "run_id": run_id})


async def meant_run(client: Client, folder: Path, text: str) -> str:
    """Return the id of the run that is meant. A whole id is taken as it is; otherwise the read model is asked.

    `latest` is the newest of the caller's own runs. `folder` is the site's.
    Raises Refusal `invalid_value` for a text that can't be an id or that several ids begin with, `not_found`.
    """
    if text == LATEST:
        return await _latest(client, folder)
    if beginnings := _RUN.beginnings(text):
        return await _beginning(client, *beginnings)
    if not is_run_id(text):
        message = (
            "this is no id of a run; give run_ and 26 digits and letters, as `oa run list` shows it, its beginning, "
            f"or `{LATEST}`"
        )
        raise Refusal("invalid_value", message, field="run_id")
    return text


async def _latest(client: Client, folder: Path) -> str:
    kept = read_json(folder / _STARTED) or {}
    started = [str(kept.get("run_id"))] if kept.get("namespace") == client.namespace else []
    listed = [run.run_id for run in (await client.commands.runs(page_size=1, own=True)).runs]
    if not (started or listed):
        raise Refusal("not_found", "you have started no run yet; start one with `oa run start`", field="run_id")
    return max(started + listed)  # ids are in the order of creation


async def _beginning(client: Client, prefix: str) -> str:
    runs = (await client.commands.runs(page_size=_ASKED, prefix=prefix)).runs
    found = [run.run_id for run in runs if run.run_id.startswith(prefix)]
    if not found:
        message = "no run's id begins so; `oa run list` shows them, and a new one takes a moment to be there"
        raise Refusal("not_found", message, field="run_id")
    return only_one(_RUN, found, "begin so", more=len(found) == _ASKED)
