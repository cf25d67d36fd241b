"""Which run is meant: by its id, by the beginning of its id, or as `latest`."""

from __future__ import annotations

import re
from pathlib import Path

from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.cpython.files import read_json, write_private_json
from oa_khala.topics import run_events

LATEST = "latest"
_BEGINNING = re.compile("(?:RUN_)?[0-9A-HJKMNP-TV-Z]{1,25}")
_STARTED = "latest-run.json"
_ASKED = 2
"""So many runs are asked for: more than one means that the beginning is not enough."""


def is_run_id(text: str) -> bool:
    """Whether it is a whole id of a run."""
    try:
        run_events(text)
    except Refusal:
        return False
    return True


def may_be_run(text: str) -> bool:
    """Whether it could be meant for a run: its id, the beginning of one, or `latest`."""
    return text == LATEST or _BEGINNING.fullmatch(text.upper()) is not None or is_run_id(text)


def remember_started(client: Client, folder: Path, run_id: str) -> None:
    """Keep which run was started last from here: the read model has it a moment later only."""
    write_private_json(folder / _STARTED, {"namespace": client.namespace, "run_id": run_id})


async def meant_run(client: Client, folder: Path, text: str) -> str:
    """The id of the run that is meant. A whole id is taken as it is; else the read model is asked.

    `latest` is the newest run of the caller's own. `folder` is the site's.
    Raises Refusal `invalid_topic` for what can't be an id, `not_found`, `invalid_value`.
    """
    if text == LATEST:
        return await _latest(client, folder)
    if _BEGINNING.fullmatch(text.upper()):
        return await _beginning(client, text.upper().removeprefix("RUN_"))
    run_events(text)
    return text


async def _latest(client: Client, folder: Path) -> str:
    kept = read_json(folder / _STARTED) or {}
    started = [str(kept.get("run_id"))] if kept.get("namespace") == client.namespace else []
    listed = [run.run_id for run in (await client.commands.runs(page_size=1, own=True)).runs]
    if not (started or listed):
        raise Refusal("not_found", "you have started no run yet; start one with `oa run start`", field="run_id")
    return max(started + listed)  # ids are in the order of creation


async def _beginning(client: Client, prefix: str) -> str:
    runs = (await client.commands.runs(page_size=_ASKED, prefix=f"run_{prefix}")).runs
    found = [run.run_id for run in runs if run.run_id.startswith(f"run_{prefix}")]
    if not found:
        message = "no run's id begins so; `oa run list` shows them, and a new one takes a moment to be there"
        raise Refusal("not_found", message, field="run_id")
    if len(found) > 1:
        message = f"several runs begin so, {found[0]} and {found[1]} among them; give more of the id"
        raise Refusal("invalid_value", message, field="run_id")
    return found[0]
