"""Which run is meant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from apps.cli.following.run_ids import meant_run, remember_started
from apps.cli.output import Output, columns_that_fit
from apps.cli.terminal import uncoloured
from apps.cli.tests.hostile import screens
from oa_base.refusal import Refusal
from oa_client.client import Client

IDS = [f"run_01JD8V00000000000000000{tail}" for tail in ("0AA", "0AB", "0B0")]
ORG = "org_01JD8V0000000000000000000A"
OTHERS = "run_01JD8V00000000000000000C00"


class FakeSite:
    """Knows IDS, of the caller, and OTHERS, of its org; the newest is the last."""

    namespace = "me"

    @property
    def commands(self) -> FakeSite:
        return self

    async def runs(self, *, page_size: int, own: bool = False, prefix: str = "") -> Any:
        ids = [each for each in ([*IDS] if own else [*IDS, OTHERS]) if each.startswith(prefix)]
        return SimpleNamespace(runs=[SimpleNamespace(run_id=each) for each in reversed(ids)][:page_size])


CLIENT = cast("Client", FakeSite())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (IDS[0], IDS[0]),
        ("run_01JD8V0000000000000000ZZZZ", "run_01JD8V0000000000000000ZZZZ"),
        (IDS[2][:-1], IDS[2]),
        (IDS[2][4:-1].lower(), IDS[2]),
        (OTHERS[:-2], OTHERS),
        ("latest", IDS[2]),
    ],
)
async def test_a_text_means_the_run_that_it_names(text: str, meant: str, tmp_path: Path) -> None:
    assert await meant_run(CLIENT, tmp_path, text) == meant


@pytest.mark.parametrize(("text", "reason"), [(IDS[0][:-1], "invalid_value"), ("run_02", "not_found")])
async def test_what_means_no_run_or_several(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        await meant_run(CLIENT, tmp_path, text)
    assert refused.value.reason == reason


@pytest.mark.parametrize("text", ["foo", "", "run_", "LATEST", ORG, "run:x", "\x1b"], ids=repr)
async def test_what_is_no_id_is_refused_in_words_about_ids(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="this is no id of a run; give run_ and 26 digits and letters") as refused:
        await meant_run(CLIENT, tmp_path, text)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "run_id")


async def test_all_that_begin_so_are_counted_and_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=f"2 runs begin so: {IDS[1]}, {IDS[0]}; give more") as refused:
        await meant_run(CLIENT, tmp_path, IDS[0][:-1])
    assert refused.value.metadata == {"count": "2", "candidates": f"{IDS[1]} {IDS[0]}"}


async def test_the_latest_may_be_newer_than_the_read_model(tmp_path: Path) -> None:
    newer = "run_01JD8V0000000000000000ZZZZ"
    remember_started(CLIENT, tmp_path, newer)
    assert await meant_run(CLIENT, tmp_path, "latest") == newer
    remember_started(CLIENT, tmp_path, IDS[0])
    assert await meant_run(CLIENT, tmp_path, "latest") == IDS[2]
    remember_started(cast("Client", SimpleNamespace(namespace="another")), tmp_path, newer)
    assert await meant_run(CLIENT, tmp_path, "latest") == IDS[2]


async def test_a_run_that_has_started_is_not_refused_if_its_id_cannot_be_kept(tmp_path: Path) -> None:
    remember_started(CLIENT, tmp_path / "there is no such folder", "run_01JD8V0000000000000000ZZZZ")
    assert await meant_run(CLIENT, tmp_path, "latest") == IDS[2]


@pytest.mark.parametrize(("width", "count"), [(200, 4), (76, 4), (75, 3), (55, 3), (54, 2), (41, 2), (40, 1), (5, 1)])
def test_a_list_leaves_columns_out(width: int, count: int) -> None:
    lines = [["run", "status", "title", "created"], ["r" * 30, "s" * 9, "t" * 80, "c" * 19]]
    assert columns_that_fit(lines, "title", width) == count


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_id_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = screens(monkeypatch, terminal=True)
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [[each, "succeeded", "a long title " * 9, "2026-01-01T00:00:00"] for each in IDS]
    Output().table(["run", "status", "title", "created"], rows, elastic="title")
    lines = uncoloured(out.written.decode()).splitlines()
    assert [line.split()[0] for line in lines] == ["run", *IDS]
    assert max(map(len, lines)) <= width
